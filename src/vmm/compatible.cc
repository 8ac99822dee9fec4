#include "vmm/compatible.h"

namespace stasis::vmm {
namespace {

// "7.2" of "7.2.22".
std::string branch(const std::string& version) { return version.substr(0, version.find('.', version.find('.') + 1)); }

std::string text(const VmmInfo& info) { return info.name + " " + info.version + " on " + info.cpu_model; }

}  // namespace

Status check_compatible(const VmmInfo& saved_with, const VmmInfo& here) {
  if (saved_with.name == here.name && branch(saved_with.version) == branch(here.version) &&
      saved_with.cpu_model == here.cpu_model) {
    return {};
  }
  return fail(Code::kFailedPrecondition,
              "the state was saved by " + text(saved_with) + ", and this host has " + text(here),
              "restore it where that version runs on such a processor");
}

}  // namespace stasis::vmm
