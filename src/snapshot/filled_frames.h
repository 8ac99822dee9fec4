// The frames of layers that this host need not hold whole: what a layer's file lacks (holes where its table says that
// there is a frame) or holds damaged comes from elsewhere, an object store for one, and stays in the file. It is
// verified there as any other frame is, so that what is elsewhere needs no trust.
#pragma once

#include <memory>
#include <utility>

#include "snapshot/frame_source.h"
#include "snapshot/layer.h"

namespace stasis::snapshot {

class FilledFrames final : public FrameSource {
 public:
  // `elsewhere` writes a frame to its place in the layer's file, which it has open for writing itself (a layer's own
  // descriptor is read-only): of a raw layer at kFrameSize times its number. It need not verify it.
  FilledFrames(std::shared_ptr<const AddressSpace> memory, std::shared_ptr<const FrameSource> elsewhere)
      : memory_(std::move(memory)), elsewhere_(std::move(elsewhere)) {}

  // Its error is that of `elsewhere`, or kDataLoss for what that has written and what is not the frame.
  Status load(FrameRef frame) const override {
    if (memory_->load(frame)) return {};
    if (Status came = elsewhere_->load(frame); !came)
      return fail(std::move(came).error().with_context(describe(frame)));
    return memory_->load(frame);
  }
  std::string describe(FrameRef frame) const override { return memory_->describe(frame); }

 private:
  std::shared_ptr<const AddressSpace> memory_;
  std::shared_ptr<const FrameSource> elsewhere_;
};

}  // namespace stasis::snapshot
