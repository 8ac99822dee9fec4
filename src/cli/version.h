#pragma once

#include <string_view>

namespace stasis::cli {

inline constexpr std::string_view kVersion = STASIS_VERSION;
inline constexpr std::string_view kVersionText = "stasis " STASIS_VERSION;

}  // namespace stasis::cli
