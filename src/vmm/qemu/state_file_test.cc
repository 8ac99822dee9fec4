#include "vmm/qemu/state_file.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "base/memory.h"
#include "base/testing/faulty_file_system.h"
#include "base/testing/temp_dir.h"
#include "vmm/contract/result_matchers.h"

namespace stasis::vmm {
namespace {

using contract::value;

std::vector<std::byte> some_bytes(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + i / 251);
  return bytes;
}

class StateFileTest : public ::testing::Test {
 protected:
  UniqueFd memory(std::span<const std::byte> bytes) {
    UniqueFd fd = value(create_memory_file("test", 0));
    EXPECT_OK(fs_.write_at(fd.get(), 0, bytes));
    return fd;
  }
  Path written(std::span<const std::byte> bytes) {
    EXPECT_OK(write_state_file(fs_, path_, memory(bytes).get()));
    return path_;
  }
  std::vector<std::byte> content(int fd) {
    std::vector<std::byte> bytes(8 << 20);
    bytes.resize(value(fs_.read_at(fd, 0, bytes)));
    return bytes;
  }

  FileSystem& fs_ = real_file_system();
  testing::TempDir directory_;
  Path path_ = directory_.path() / "state";
};

TEST_F(StateFileTest, ComesBackWhole) {
  // Around the size of the pieces that it is read in.
  for (const size_t size : {size_t{0}, size_t{1}, size_t{250'000}, size_t{1 << 20}, size_t{(1 << 20) + 1}}) {
    const auto bytes = some_bytes(size);
    written(bytes);
    auto stream = read_state_file(fs_, path_);
    ASSERT_OK(stream);
    EXPECT_EQ(content(stream->get()), bytes) << size;
    ASSERT_OK(fs_.remove(path_));
  }
}

// A file of version 1 as it was written: every later version must read it, and writes the same bytes for as long as it
// writes version 1.
TEST_F(StateFileTest, Version1IsReadAndWrittenAsItWas) {
  const Path golden = STASIS_GOLDEN_STATE_FILE;
  std::vector<std::byte> stream(300);
  for (size_t i = 0; i < stream.size(); ++i) stream[i] = static_cast<std::byte>(i * 13 + 1);
  auto read = read_state_file(fs_, golden);
  ASSERT_OK(read);
  EXPECT_EQ(content(read->get()), stream);
  EXPECT_EQ(value(read_file(fs_, written(stream), 1000)), value(read_file(fs_, golden, 1000)));
}

TEST_F(StateFileTest, AnyChangedByteIsNoticed) {
  written(some_bytes(100));
  const auto good = value(read_file(fs_, path_, 1000));
  const auto file = fs_.open_write(path_);
  ASSERT_OK(file);
  for (size_t i = 0; i < good.size(); ++i) {
    const std::array changed{good[i] ^ std::byte{0x10}};
    ASSERT_OK(fs_.write_at(file->get(), i, changed));
    EXPECT_FAILS(read_state_file(fs_, path_), Code::kDataLoss) << "byte " << i;
    ASSERT_OK(fs_.write_at(file->get(), i, std::span(good).subspan(i, 1)));
  }
  EXPECT_OK(read_state_file(fs_, path_));
}

TEST_F(StateFileTest, AnyOtherLengthIsNoticed) {
  written(some_bytes(100));
  const auto file = fs_.open_write(path_);
  ASSERT_OK(file);
  ASSERT_OK(fs_.truncate(file->get(), 125));
  EXPECT_FAILS(read_state_file(fs_, path_), Code::kDataLoss);
  for (uint64_t size = 124; size-- > 0;) {
    ASSERT_OK(fs_.truncate(file->get(), size));
    EXPECT_FAILS(read_state_file(fs_, path_), Code::kDataLoss) << size;
  }
}

TEST_F(StateFileTest, WhatIsHugeIsNotRead) {
  const auto file = fs_.create(path_);
  ASSERT_OK(file);
  ASSERT_OK(fs_.truncate(file->get(), uint64_t{1} << 40));
  EXPECT_FAILS(read_state_file(fs_, path_), Code::kDataLoss);
}

TEST_F(StateFileTest, MissingIsNotFoundAndPresentIsKept) {
  EXPECT_FAILS(read_state_file(fs_, path_), Code::kNotFound);
  written(some_bytes(100));
  EXPECT_FAILS(write_state_file(fs_, path_, memory(some_bytes(5)).get()), Code::kAlreadyExists);
  EXPECT_OK(read_state_file(fs_, path_));
}

TEST_F(StateFileTest, NothingStaysWhenTheDiskIsFull) {
  testing::FaultyFileSystem full;
  const UniqueFd stream = memory(some_bytes(100));
  full.fail_at(3, ENOSPC);  // read, create, write
  EXPECT_FAILS(write_state_file(full, path_, stream.get()), Code::kResourceExhausted);
  EXPECT_TRUE(full.fired());
  EXPECT_FALSE(exists(fs_, path_));
}

}  // namespace
}  // namespace stasis::vmm
