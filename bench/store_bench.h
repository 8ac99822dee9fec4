// The parts of bench-store. Each adds its figures to a flat JSON object.
#pragma once

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file_system.h"
#include "must.h"

namespace stasis::bench {

// Keeps the compiler from leaving out work whose result nobody uses.
template <typename T>
void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

// Bytes that operator new has given out since the start.
uint64_t allocated_bytes();

void bench_maps(nlohmann::json& out, const Path& directory);
void bench_capture(nlohmann::json& out, const Path& directory);
void bench_read(nlohmann::json& out, const Path& directory);

}  // namespace stasis::bench
