// Makes a bare kernel with a mounted root into a system: file systems, host name, network, full use of the disk.
// Problems are lines on the console, not the end: a guest that can be reached can be examined.
#pragma once

namespace stasis::guest {

void start_system();

}  // namespace stasis::guest
