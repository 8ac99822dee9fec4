// Small ext file systems for tests, made by mke2fs and changed by debugfs, and kept in a store as a guest's disk would
// be: a second disk shares with the first what it did not change.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "base/process.h"
#include "files/tree_diff.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::files::testing {

using snapshot::testing::Bytes;

class ExtDiskTest : public snapshot::testing::StoreTest {
 protected:
  Path path(const std::string& name) const { return dir_.path() / name; }

  // Exit status of a program with its output thrown away.
  static int run(const std::vector<std::string>& argv) {
    SpawnOptions options;
    options.argv = argv;
    options.env = {{"PATH", "/usr/sbin:/sbin:/usr/bin:/bin"}};
    auto process = spawn(options);
    if (!process) return -1;
    const auto ended = process->wait(Deadline::never());
    return ended && *ended && (*ended)->exited ? (*ended)->code : -1;
  }

  // The path of a new image of `mebibytes` with everything that lies below path("tree").
  Path make(const std::string& name, const std::vector<std::string>& options = {}, int mebibytes = 8) {
    std::vector<std::string> argv{"mke2fs", "-q", "-F", "-E", "hash_seed=2c1c5ff0-9a1f-4e27-8e9f-4f5de0b3a5a1"};
    argv.insert(argv.end(), options.begin(), options.end());
    if (std::filesystem::exists(path("tree"))) argv.insert(argv.end(), {"-d", path("tree").string()});
    argv.insert(argv.end(), {path(name).string(), std::to_string(mebibytes) + "M"});
    EXPECT_EQ(run(argv), 0) << "mke2fs";
    return path(name);
  }

  void write_file(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories(path(name).parent_path());
    std::ofstream(path(name), std::ios::binary) << content;
  }

  // A copy of an image, changed by commands of debugfs, one a line.
  Path changed(const Path& image, const std::string& name, const std::string& commands) {
    std::filesystem::copy_file(image, path(name), std::filesystem::copy_options::overwrite_existing);
    write_file("commands", commands);
    EXPECT_EQ(run({"debugfs", "-w", "-f", path("commands").string(), path(name).string()}), 0);
    return path(name);
  }

  // Bytes of an image overwritten.
  static void poke(const Path& image, uint64_t offset, const std::string& bytes) {
    std::fstream file(image, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file << bytes;
  }

  // An image as an address space; what it has in common with `base` it shares.
  std::shared_ptr<snapshot::AddressSpace> disk(const Path& image, const snapshot::AddressSpace* base = nullptr) {
    Bytes bytes = snapshot::testing::read_whole_file(image);
    const Bytes before = base != nullptr ? snapshot::testing::read_all(*base) : Bytes(bytes.size());
    const auto layer = snapshot::LayerId::random();
    auto writer = snapshot::LayerWriter::create(fs_, store_.layers_dir(), layer, bytes.size()).value();
    std::vector<snapshot::Change> changes;
    for (uint64_t at = 0; at < bytes.size(); at += snapshot::kBlockSize) {
      const auto block = std::span<const std::byte>(bytes).subspan(at, snapshot::kBlockSize);
      if (std::equal(block.begin(), block.end(), before.begin() + static_cast<ptrdiff_t>(at))) continue;
      EXPECT_TRUE(writer->write(at, block));
      changes.push_back({{at, snapshot::kBlockSize}, false});
    }
    EXPECT_TRUE(writer->finish());
    const auto parent = base != nullptr ? base->map() : snapshot::BlockMap::zeros(bytes.size()).value();
    return open(parent.merge(layer, changes).value());
  }

  // What differs between two images, the second of which stands on the first.
  Result<Report> diff(const Path& before, const Path& now) {
    const auto space_before = disk(before);
    const auto space_now = disk(now, space_before.get());
    return diff_disks(*space_before, *space_now);
  }

  // "modified /etc/x content,mode", in the order of the report.
  static std::vector<std::string> lines(const Result<Report>& report) {
    if (!report) return {"error: " + report.error().message};
    std::vector<std::string> lines;
    for (const FileChange& change : report->changes) {
      std::string line(change_kind_name(change.kind));
      line += " " + change.path;
      if (!change.old_path.empty()) line += " from " + change.old_path;
      if ((change.what & kContentChanged) != 0) line += " content";
      if ((change.what & kModeChanged) != 0) line += " mode";
      if ((change.what & kOwnerChanged) != 0) line += " owner";
      if ((change.what & kAttributesChanged) != 0) line += " attributes";
      lines.push_back(line);
    }
    return lines;
  }
};

}  // namespace stasis::files::testing
