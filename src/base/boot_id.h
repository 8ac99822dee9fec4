// Which boot of the machine this is: a UUID that the kernel makes at each start. What is noted with it is void after
// the next one.
#pragma once

#include <string>

#include "base/result.h"

namespace stasis {

Result<std::string> boot_id();

}  // namespace stasis
