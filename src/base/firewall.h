// nftables through libnftables. A Firewall works on the network namespace in which it was opened, also after its
// process has gone to another one. Not thread-safe.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

struct nft_ctx;

namespace stasis {

class Firewall {
 public:
  static Result<Firewall> open();
  // Applies commands in nft's own language, all of them or none.
  Status apply(const std::string& commands);

 private:
  struct Close {
    void operator()(nft_ctx* context) const;
  };
  explicit Firewall(nft_ctx* context) : context_(context) {}
  std::unique_ptr<nft_ctx, Close> context_;
};

}  // namespace stasis
