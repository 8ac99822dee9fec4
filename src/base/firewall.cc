#include "base/firewall.h"

#include <nftables/libnftables.h>

namespace stasis {

void Firewall::Close::operator()(nft_ctx* context) const { nft_ctx_free(context); }

Result<Firewall> Firewall::open() {
  Firewall result(nft_ctx_new(NFT_CTX_DEFAULT));
  // Messages are kept in the context instead of being printed.
  if (!result.context_ || nft_ctx_buffer_error(result.context_.get()) != 0 ||
      nft_ctx_buffer_output(result.context_.get()) != 0) {
    return fail(Code::kInternal, "open nftables");
  }
  return result;
}

Status Firewall::apply(const std::string& commands) {
  if (nft_run_cmd_from_buffer(context_.get(), commands.c_str()) == 0) return {};
  return fail(Code::kInternal, std::string("nftables: ") + nft_ctx_get_error_buffer(context_.get()),
              "the kernel needs nf_tables with masquerade and connection tracking, and root");
}

}  // namespace stasis
