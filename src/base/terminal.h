// What the standard streams of a program are connected to.
#pragma once

namespace stasis {

bool is_terminal(int fd);

// Standard input as a source of data: a terminal is for a person, a device such as /dev/null has nothing, a pipe, a
// file or a socket has bytes up to its end.
enum class InputKind { kTerminal, kNothing, kData };
InputKind input_kind(int fd);

}  // namespace stasis
