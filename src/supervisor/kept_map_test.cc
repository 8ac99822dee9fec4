#include "supervisor/kept_map.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "base/testing/faulty_file_system.h"
#include "base/testing/temp_dir.h"

namespace stasis::supervisor {
namespace {

using snapshot::BlockMap;
using snapshot::kBlockSize;
using snapshot::LayerId;

class KeptMapTest : public ::testing::Test {
 protected:
  // The map of the next generation, with a layer of its own in the store.
  BlockMap next_of(const BlockMap& map) {
    const LayerId id = LayerId::random();
    auto writer = snapshot::LayerWriter::create(real_file_system(), layers_, id, map.size()).value();
    EXPECT_TRUE(writer->write(0, std::vector<std::byte>(kBlockSize, std::byte{7})));
    EXPECT_TRUE(writer->finish());
    return map.merge(id, std::vector<snapshot::Change>{{{0, kBlockSize}, false}}).value();
  }
  Uuid recorded() {
    const auto bytes = read_file(real_file_system(), record_, 1 << 20).value();
    return BlockMap::decode(bytes).value().metadata().id;
  }

  testing::TempDir dir_;
  testing::FaultyFileSystem fs_;
  const Path layers_ = dir_.path() / "layers";
  const Path record_ = dir_.path() / "memory.map";
};

// Any call may fail, a host without descriptors left among the reasons: then the sandbox goes on comparing with what it
// had, whose layers a collection must leave.
TEST_F(KeptMapTest, WhatCannotBeStoodOnIsNotRecorded) {
  ASSERT_TRUE(real_file_system().make_directory(layers_));
  const BlockMap first = next_of(BlockMap::zeros(16 * kBlockSize).value());
  ASSERT_TRUE(open_and_keep(fs_, record_, layers_, first, nullptr));
  const BlockMap second = next_of(first);
  for (uint64_t call = 1; call < 100; ++call) {
    fs_.fail_at(call, EMFILE);
    const auto opened = open_and_keep(fs_, record_, layers_, second, nullptr);
    fs_.heal();
    if (opened) {
      EXPECT_GT(call, 5U);
      EXPECT_EQ(recorded(), second.metadata().id);
      return;
    }
    ASSERT_EQ(recorded(), first.metadata().id) << "call " << call;
  }
  FAIL() << "never opened";
}

}  // namespace
}  // namespace stasis::supervisor
