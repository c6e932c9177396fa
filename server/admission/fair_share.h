// Limits the part of a bounded resource that one client may hold.
#ifndef LONGEMBED_SERVER_ADMISSION_FAIR_SHARE_H_
#define LONGEMBED_SERVER_ADMISSION_FAIR_SHARE_H_

namespace longembed {

// Returns whether a client that holds `held` exceeds its share while `free` is left for all. One client may use most of
// an otherwise idle resource, and there is always room for others ("dynamic thresholds", Choudhury and Hahne, 1998).
// `free` is negative if the resource is overcommitted. A client that holds nothing exceeds no share even then.
template <typename Amount>
bool ExceedsFairShare(Amount held, Amount free) {
  return held > Amount{} && held > 4 * free;
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_FAIR_SHARE_H_
