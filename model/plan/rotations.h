// The rotary tables of one sequence.
#ifndef LONGEMBED_MODEL_PLAN_ROTATIONS_H_
#define LONGEMBED_MODEL_PLAN_ROTATIONS_H_

#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"
#include "model/plan/rotary.h"
#include "model/plan/sequence.h"

namespace longembed {

// Sets the tables, the neighbor window and the chunk of `sequence` as its positions require. The tokens must be set.
void SetRotations(const ModelManifest& model, const Positions& positions, RotaryTableCache& tables, Sequence& sequence);

// Copies the pointers to rotary tables. Windows of equal length have equal rotations, and a text may have tens of
// thousands of windows.
void ShareRotations(const Sequence& before, Sequence& sequence);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_ROTATIONS_H_
