#include "guest/output_log.h"

#include <gtest/gtest.h>

namespace stasis::guest {
namespace {

std::string read_all(OutputLog& log, OutputLog::ReaderId reader) {
  std::string out;
  while (auto chunk = log.next(reader)) out += chunk->data;
  return out;
}

TEST(OutputLog, EveryReaderSeesEverythingInOrder) {
  OutputLog log;
  auto first = log.attach();
  log.append(Stream::kStdout, "one");
  log.append(Stream::kStderr, "two");
  auto second = log.attach();
  auto chunk = log.next(first);
  ASSERT_TRUE(chunk);
  EXPECT_EQ(chunk->stream, Stream::kStdout);
  EXPECT_EQ(chunk->end(), 3U);
  EXPECT_EQ(read_all(log, first), "two");
  EXPECT_EQ(read_all(log, second), "onetwo");
}

TEST(OutputLog, WhatWasNotDeliveredGoesToTheNextReader) {
  OutputLog log;
  auto lost = log.attach();
  log.append(Stream::kStdout, "abc");
  log.append(Stream::kStdout, "def");
  EXPECT_EQ(read_all(log, lost), "abcdef");
  log.set_delivered(2);
  log.detach(lost);
  EXPECT_EQ(read_all(log, log.attach()), "cdef");
}

TEST(OutputLog, DeliveredOutputIsNotSentAgain) {
  OutputLog log;
  auto reader = log.attach();
  log.append(Stream::kStdout, "abc");
  read_all(log, reader);
  log.set_delivered(3);
  auto late = log.attach();
  EXPECT_EQ(read_all(log, late), "");
  log.append(Stream::kStdout, "new");
  EXPECT_EQ(read_all(log, late), "new");
}

TEST(OutputLog, ASlowReaderHoldsTheProcessBackAndLosesNothing) {
  OutputLog log;
  auto slow = log.attach();
  uint64_t written = 0;
  for (size_t size = 1; log.room(); size = size % 65'536 * 3 + 1) {  // chunks of uneven sizes
    log.append(Stream::kStdout, std::string(size, 'x'));
    written += size;
    ASSERT_LE(written, 2 * OutputLog::kCapacity);
  }
  EXPECT_EQ(read_all(log, slow).size(), written);
  EXPECT_TRUE(log.room());
}

TEST(OutputLog, WithoutReadersTheNewestIsKept) {
  OutputLog log;
  const std::string block(size_t{64} << 10, 'x');
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(log.room());
    log.append(Stream::kStdout, block);
  }
  log.append(Stream::kStdout, "last");
  EXPECT_LE(log.stored_bytes(), OutputLog::kCapacity + block.size());
  EXPECT_GE(log.stored_bytes(), OutputLog::kCapacity);
  std::string kept = read_all(log, log.attach());
  EXPECT_EQ(kept.size(), log.stored_bytes());
  EXPECT_TRUE(kept.ends_with("last"));
}

TEST(OutputLog, DropDeliveredFreesOnlyThat) {
  OutputLog log;
  log.append(Stream::kStdout, "abc");
  log.append(Stream::kStdout, "def");
  log.set_delivered(4);
  log.drop_delivered();
  EXPECT_EQ(log.stored_bytes(), 3U);
  EXPECT_EQ(read_all(log, log.attach()), "ef");
}

}  // namespace
}  // namespace stasis::guest
