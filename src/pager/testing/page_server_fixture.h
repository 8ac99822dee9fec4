// A page server for a memory of 256 pages of which some are in a layer.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <future>
#include <memory>
#include <vector>

#include "base/testing/temp_dir.h"
#include "pager/page_server.h"
#include "snapshot/layer.h"

namespace stasis::pager::testing {

constexpr uint64_t kPages = 256;
constexpr uint64_t kSize = kPages * snapshot::kBlockSize;

// Pages 0-99 are in a layer (filled with their number + 1), 100-199 zeros, 200-255 in the layer again.
inline bool page_has_data(uint64_t page) { return page < 100 || page >= 200; }
inline std::byte content_of(uint64_t page) {
  return page_has_data(page) ? static_cast<std::byte>(page + 1) : std::byte{0};
}

class PageServerFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    FileSystem& fs = real_file_system();
    layers_ = dir_.path() / "layers";
    ASSERT_TRUE(fs.make_directory(layers_));
    const snapshot::LayerId id = snapshot::LayerId::random();
    auto writer = snapshot::LayerWriter::create(fs, layers_, id, kSize);
    ASSERT_TRUE(writer);
    for (uint64_t page = 0; page < kPages; ++page) {
      const std::vector<std::byte> block(snapshot::kBlockSize, content_of(page));
      if (!page_has_data(page)) continue;
      ASSERT_TRUE((*writer)->write(page * snapshot::kBlockSize, block));
    }
    ASSERT_TRUE((*writer)->finish());
    layer_file_ = snapshot::layer_data_path(layers_, id);
    const std::array changes{snapshot::Change{{0, 100 * snapshot::kBlockSize}, false},
                             snapshot::Change{{200 * snapshot::kBlockSize, 56 * snapshot::kBlockSize}, false}};
    auto map = snapshot::BlockMap::zeros(kSize)->merge(id, changes);
    ASSERT_TRUE(map);
    auto space = snapshot::AddressSpace::open(files(), layers_, std::move(*map));
    ASSERT_TRUE(space);
    space_ = std::move(*space);
  }

  // Through which layers are read.
  virtual FileSystem& files() { return real_file_system(); }

  void start_server(PageServerOptions options = {}) {
    options.on_failure = [this](const Error& error) { failure_.set_value(error); };
    auto server = PageServer::start(socket_path(), space_, std::move(options));
    ASSERT_TRUE(server);
    server_ = std::move(*server);
  }

  Path socket_path() const { return dir_.path() / "uffd.sock"; }

  stasis::testing::TempDir dir_;
  Path layers_;
  Path layer_file_;
  std::shared_ptr<snapshot::AddressSpace> space_;
  std::promise<Error> failure_;
  std::unique_ptr<PageServer> server_;
};

}  // namespace stasis::pager::testing
