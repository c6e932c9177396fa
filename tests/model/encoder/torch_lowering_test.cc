// Checks that parts which no kernel computes are not lowered, however similar they are to supported ones.
#include "model/encoder/torch_lowering.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <string>
#include <utility>

#include "model/encoder/torch_graph.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;
using torch::jit::Module;

constexpr int64_t kHidden = 4;

// Returns a part of the class `kind`, with weight [H, H] and bias [H].
Module Part(const std::string& kind, const std::string& forward = "return torch.linear(x, self.weight, self.bias)") {
  Module part("__torch__.test." + kind);
  part.register_parameter("weight", torch::ones({kHidden, kHidden}), false);
  part.register_parameter("bias", torch::zeros({kHidden}), false);
  part.define("def forward(self, x):\n    " + forward + "\n");
  return part;
}

Module WordEmbeddings() {
  Module embeddings("__torch__.test.WordEmbeddings");
  embeddings.register_parameter("word", torch::ones({5, kHidden}), false);
  return embeddings;
}

Module DensePooling(const std::string& activation) {
  Module dense("__torch__.test.Dense"), heads("__torch__.test.ModuleList"), pooling("__torch__.test.DensePooling");
  dense.register_module("linear", Part("Linear"));
  dense.register_module("activation", Module("__torch__.test." + activation));
  heads.register_module("0", dense);
  pooling.register_module("pooling", Module("__torch__.test.SpanMean"));
  pooling.register_module("heads", heads);
  return pooling;
}

Module Gate(const std::string& kind) {
  Module gate("__torch__.test." + kind);
  gate.define("def forward(self, x):\n    return x\n");
  return gate;
}

// Returns a graph with one layer that calls `part`, and `gate` if there is one.
Module Graph(const Module& part, const Module& embeddings, const Module& pooling,
             const std::string& result = "hidden + self.part.forward(hidden)",
             const Module& gate = Module("__torch__.test.None")) {
  Module layer("__torch__.test.Layer"), layers("__torch__.test.Layers"), graph("__torch__.test.Graph");
  layer.register_module("part", part);
  layer.register_module("gate", gate);
  layer.define("def forward(self, hidden):\n    return " + result + "\n");
  layers.register_module("0", layer);
  graph.register_module("embeddings", embeddings);
  graph.register_module("layers", layers);
  graph.register_module("pooling", pooling);
  return graph;
}

std::string WhyNot(const Module& graph) { return std::string(LowerToProgram(graph).status().message()); }

TEST(TorchLoweringTest, KnownPartsAreLowered) {
  const absl::StatusOr<Program> program =
      LowerToProgram(Graph(Part("Linear"), WordEmbeddings(), Module("__torch__.test.SpanMean")));
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(program->layers.at(0).size(), 2);  // The two operations are the product and the sum.
}

TEST(TorchLoweringTest, AGateIsPartOfItsProduct) {
  const Module plain("__torch__.test.SpanMean");
  const std::string result = "self.gate.forward(self.part.forward(hidden))";
  for (const auto& [kind, activation] : {std::pair("SwiGlu", Activation::kSilu), std::pair("GeGlu", Activation::kGelu),
                                         std::pair("GeGluTanh", Activation::kGeluTanh)}) {
    const absl::StatusOr<Program> program =
        LowerToProgram(Graph(Part("Linear"), WordEmbeddings(), plain, result, Gate(kind)));
    ASSERT_TRUE(program.ok()) << program.status();
    ASSERT_EQ(program->layers.at(0).size(), 1);
    const auto& product = std::get<LinearOp>(program->layers[0][0]);
    EXPECT_TRUE(product.gated && product.activation == activation && product.out == program->output) << kind;
    EXPECT_EQ(program->widths[program->output], kHidden / 2);
  }
  for (const char* other : {"self.gate.forward(hidden)", "self.gate.forward(hidden + self.part.forward(hidden))",
                            "self.gate.forward(self.gate.forward(self.part.forward(hidden)))"}) {
    EXPECT_THAT(WhyNot(Graph(Part("Linear"), WordEmbeddings(), plain, other, Gate("SwiGlu"))),
                HasSubstr("a gate over something other than a linear layer's result"));
  }
  EXPECT_THAT(WhyNot(Graph(Part("LinearGelu"), WordEmbeddings(), plain, result, Gate("SwiGlu"))), HasSubstr("a gate"));
}

TEST(TorchLoweringTest, AProductThatIsReadBesideItsGateIsRefused) {
  Module layer("__torch__.test.Layer"), layers("__torch__.test.Layers");
  layer.register_module("part", Part("Linear"));
  layer.register_module("gate", Gate("SwiGlu"));
  layer.define(
      "def forward(self, hidden):\n    both = self.part.forward(hidden)\n    return self.gate.forward(both) + both\n");
  layers.register_module("0", layer);
  Module graph("__torch__.test.Graph");
  graph.register_module("embeddings", WordEmbeddings());
  graph.register_module("layers", layers);
  graph.register_module("pooling", Module("__torch__.test.SpanMean"));
  EXPECT_THAT(WhyNot(graph), HasSubstr("an addition of something unknown"));
}

TEST(TorchLoweringTest, DenseLayersFollowThePooling) {
  for (const auto& [kind, activation] : {std::pair("Identity", Activation::kNone), std::pair("Tanh", Activation::kTanh),
                                         std::pair("ReLU", Activation::kRelu)}) {
    const absl::StatusOr<Program> program = LowerToProgram(Graph(Part("Linear"), WordEmbeddings(), DensePooling(kind)));
    ASSERT_TRUE(program.ok()) << program.status();
    ASSERT_EQ(program->dense.size(), 1);
    EXPECT_EQ(program->dense[0].activation, activation);
    EXPECT_TRUE(program->dense[0].bias);
  }
}

TEST(TorchLoweringTest, APartOfAnotherNameIsRefused) {
  const Module plain("__torch__.test.SpanMean");
  EXPECT_THAT(WhyNot(Graph(Part("LinearGeluTanh"), WordEmbeddings(), plain)),
              HasSubstr("a part of class LinearGeluTanh"));
  EXPECT_THAT(WhyNot(Graph(Part("GroupNorm"), WordEmbeddings(), plain)), HasSubstr("a part of class GroupNorm"));
  EXPECT_THAT(WhyNot(Graph(Part("Linear"), Module("__torch__.test.ScaledWordEmbeddings"), plain)),
              HasSubstr("a part of class ScaledWordEmbeddings"));
  EXPECT_THAT(WhyNot(Graph(Part("Linear"), WordEmbeddings(), Module("__torch__.test.SpanMaximum"))),
              HasSubstr("a part of class SpanMaximum"));
  EXPECT_THAT(WhyNot(Graph(Part("Linear"), WordEmbeddings(), DensePooling("Softmax"))),
              HasSubstr("a part of class Softmax"));
}

TEST(TorchLoweringTest, AKnownPartWithMoreThanItsKernelReadsIsRefused) {
  const Module plain("__torch__.test.SpanMean");
  Module scaled = Part("Linear");
  scaled.register_attribute("scale", c10::FloatType::get(), 2.0);
  EXPECT_THAT(WhyNot(Graph(scaled, WordEmbeddings(), plain)), HasSubstr("a part of class Linear with scale"));
  Module masked = Part("Linear");
  masked.register_buffer("mask", torch::ones({kHidden}));
  EXPECT_THAT(WhyNot(Graph(masked, WordEmbeddings(), plain)), HasSubstr("a part of class Linear with mask"));
  Module adapted = Part("Linear");
  adapted.register_module("adapter", Part("Linear"));
  EXPECT_THAT(WhyNot(Graph(adapted, WordEmbeddings(), plain)), HasSubstr("a part of class Linear with adapter"));
  Module typed = WordEmbeddings();
  typed.register_parameter("type", torch::ones({2, kHidden}), false);
  EXPECT_THAT(WhyNot(Graph(Part("Linear"), typed, plain)), HasSubstr("a part of class WordEmbeddings with type"));
  Module constant = Part("SwiGlu", "return x");
  constant.type()->addConstant("limit", c10::IValue(7.0));
  EXPECT_FALSE(CheckKnownPart(constant).ok());
}

Module Norm(const std::string& kind, int64_t weight, int64_t bias) {
  Module norm("__torch__.test." + kind);
  norm.register_parameter("weight", torch::ones({weight}), false);
  norm.register_parameter("bias", torch::zeros({bias}), false);
  norm.type()->addConstant("epsilon", c10::IValue(1e-5));
  norm.define("def forward(self, x):\n    return x\n");
  return norm;
}

Module NormedSpanMean(const Module& norm) {
  Module pooling("__torch__.test.NormedSpanMean");
  pooling.register_module("norm", norm);
  pooling.register_module("mean", Module("__torch__.test.SpanMean"));
  return pooling;
}

// Kernels read as many numbers as the layer is wide. Beyond the end of a shorter vector there is other memory.
TEST(TorchLoweringTest, VectorsOfAnotherWidthAreRefused) {
  const Module plain("__torch__.test.SpanMean");
  for (const int64_t width : {kHidden - 1, kHidden + 1, int64_t{1}}) {
    Module part = Part("Linear");
    part.setattr("bias", torch::zeros({width}));
    EXPECT_THAT(WhyNot(Graph(part, WordEmbeddings(), plain)), HasSubstr("a linear layer with a bias of another width"));
    EXPECT_THAT(WhyNot(Graph(Norm("LayerNorm", width, kHidden), WordEmbeddings(), plain)), HasSubstr("a norm"));
    EXPECT_THAT(WhyNot(Graph(Norm("LayerNorm", kHidden, width), WordEmbeddings(), plain)),
                HasSubstr("a norm with a bias of another width"));
    for (const auto& [weight, bias] : {std::pair(width, kHidden), std::pair(kHidden, width)}) {
      const Module pooling = NormedSpanMean(Norm("LayerNorm", weight, bias));
      EXPECT_THAT(WhyNot(Graph(Part("Linear"), WordEmbeddings(), pooling)), HasSubstr("a last norm of another width"));
      Module normed = Norm("NormedWordEmbeddings", weight, bias);
      normed.register_parameter("word", torch::ones({5, kHidden}), false);
      EXPECT_THAT(WhyNot(Graph(Part("Linear"), normed, plain)), HasSubstr("a norm of embeddings of another width"));
    }
    Module pooling = DensePooling("Tanh");
    pooling.attr("heads").toModule().attr("0").toModule().attr("linear").toModule().setattr("bias",
                                                                                            torch::zeros({width}));
    EXPECT_THAT(WhyNot(Graph(Part("Linear"), WordEmbeddings(), pooling)),
                HasSubstr("a Dense layer with a bias of another width"));
    Module embeddings("__torch__.test.Embeddings");
    embeddings.register_parameter("word", torch::ones({5, kHidden}), false);
    embeddings.register_parameter("position", torch::ones({7, width}), false);
    embeddings.register_module("norm", Norm("ResidualNorm", kHidden, kHidden));
    EXPECT_THAT(WhyNot(Graph(Part("Linear"), embeddings, plain)), HasSubstr("positions of another width"));
  }
  EXPECT_TRUE(LowerToProgram(Graph(Norm("LayerNorm", kHidden, kHidden), WordEmbeddings(),
                                   NormedSpanMean(Norm("LayerNorm", kHidden, kHidden))))
                  .ok());
}

// On a GPU attention is one kernel, which is chosen by the class of the part.
TEST(TorchLoweringTest, AttentionWithASettingOfItsOwnRunsAsItIs) {
  for (const bool local : {false, true}) {
    Module attention("__torch__.test.RotaryAttention");
    attention.type()->addConstant("heads", c10::IValue(2));
    attention.type()->addConstant("key_value_heads", c10::IValue(1));
    attention.type()->addConstant("causal", c10::IValue(false));
    if (local) attention.type()->addConstant("window", c10::IValue(64));
    attention.define("def forward(self, x):\n    return x\n");
    Module layer("__torch__.test.Layer");
    layer.register_module("attention", attention);
    layer.define("def forward(self, hidden):\n    return self.attention.forward(hidden)\n");
    const absl::StatusOr<LayerCalls> calls = ReadLayerCalls(layer);
    ASSERT_TRUE(calls.ok()) << calls.status();
    EXPECT_EQ(calls->calls.at(0).attention.has_value(), !local);
  }
}

}  // namespace
}  // namespace longembed
