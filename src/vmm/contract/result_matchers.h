// Expectations about results, with the error's text in the failure. For tests.
#pragma once

#include <gtest/gtest.h>

#include "base/result.h"

namespace stasis::vmm::contract {

template <typename T>
::testing::AssertionResult is_ok(const Result<T>& result) {
  if (result) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << code_name(result.error().code) << ": " << result.error().message;
}

template <typename T>
::testing::AssertionResult fails_with(const Result<T>& result, Code code) {
  if (result) return ::testing::AssertionFailure() << "succeeded";
  if (result.error().code == code) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << code_name(result.error().code) << ": " << result.error().message;
}

// The value, or a failure and a default one.
template <typename T>
T value(Result<T> result) {
  EXPECT_TRUE(is_ok(result));
  return result ? std::move(*result) : T{};
}

}  // namespace stasis::vmm::contract

#define EXPECT_OK(expression) EXPECT_TRUE(::stasis::vmm::contract::is_ok(expression)) << #expression
#define ASSERT_OK(expression) ASSERT_TRUE(::stasis::vmm::contract::is_ok(expression)) << #expression
#define EXPECT_FAILS(expression, code) EXPECT_TRUE(::stasis::vmm::contract::fails_with(expression, code)) << #expression
