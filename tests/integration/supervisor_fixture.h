// Runs the real supervisor with a real Linux guest under QEMU, without agent or server.
#pragma once

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/process.h"
#include "base/testing/temp_dir.h"
#include "snapshot/compact.h"
#include "snapshot/store.h"
#include "supervisor/client.h"

namespace stasis::supervisor {

using snapshot::SnapshotId;
using ::testing::HasSubstr;

inline std::string required(const char* variable) {
  const char* value = std::getenv(variable);
  EXPECT_NE(value, nullptr) << variable << " is not set; run this through ctest";
  return value != nullptr ? value : "";
}

class SupervisorTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = std::make_unique<testing::TempDir>();
    auto store = snapshot::Store::open(real_file_system(), root_->path() / "store");
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::make_unique<snapshot::Store>(std::move(*store));
    const Path image = required("STASIS_IMAGE");
    auto imported =
        snapshot::import_image(*store_, {image / "vmlinux", image / "initrd", image / "rootfs.ext4", "test"});
    ASSERT_TRUE(imported) << imported.error().message;
    image_ = imported->id;
  }
  static void TearDownTestSuite() {
    store_.reset();
    root_.reset();
  }

  // A supervisor with its sandbox directory.
  struct Running {
    Path dir;
    std::optional<Process> process;
    std::unique_ptr<Client> client;
  };

  Running launch(SnapshotId base, const std::string& name, const std::string& restore,
                 std::vector<std::pair<std::string, std::string>> env = {}) {
    Running running;
    running.dir = root_->path() / name;
    EXPECT_TRUE(real_file_system().make_directory(running.dir));
    SandboxConfig config{name, store_->root(), base, {1, 256}, 0, "qemu", restore};
    EXPECT_TRUE(publish_file(real_file_system(), running.dir / kConfigFile, to_json(config).dump()));
    SpawnOptions options;
    options.argv = {required("STASIS_BIN") + "/stasis-supervisor", "--sandbox-dir", running.dir.string()};
    options.env = std::move(env);
    options.stderr_fd = STDERR_FILENO;
    auto process = spawn(options);
    EXPECT_TRUE(process) << process.error().message;
    running.process = std::move(*process);
    return running;
  }
  // The same, and waits until it can be asked.
  Running start(SnapshotId base, const std::string& name, const std::string& restore = "") {
    Running running = launch(base, name, restore);
    connect(running);
    return running;
  }

  // A spare for this disk, ready.
  static Running start_spare(const std::string& name, uint64_t disk_bytes) {
    Running running;
    running.dir = root_->path() / name;
    EXPECT_TRUE(real_file_system().make_directory(running.dir));
    const SpareConfig config{{1, 256}, disk_bytes, "qemu"};
    EXPECT_TRUE(publish_file(real_file_system(), running.dir / kSpareFile, to_json(config).dump()));
    const auto log = real_file_system().create(running.dir / kSupervisorLog);
    EXPECT_TRUE(log);
    SpawnOptions options;
    options.argv = {required("STASIS_BIN") + "/stasis-supervisor", "--spare-dir", running.dir.string()};
    options.stderr_fd = log->get();
    options.die_with_parent = true;
    auto process = spawn(options);
    EXPECT_TRUE(process) << process.error().message;
    running.process = std::move(*process);
    connect(running);
    const Status ready = running.client->await_spare(Milliseconds(60'000));
    EXPECT_TRUE(ready) << ready.error().message;
    return running;
  }
  static void connect(Running& running) {
    for (int attempt = 0; attempt < 1000 && !running.client; ++attempt) {
      auto client = Client::connect(running.dir);
      if (client) running.client = std::move(*client);
      std::this_thread::sleep_for(Milliseconds(10));
    }
    ASSERT_TRUE(running.client);
  }
  // It becomes the supervisor of a sandbox with a directory of its own.
  static Status become(Running& spare, SnapshotId base, const std::string& name, const std::string& restore) {
    const Path dir = root_->path() / name;
    EXPECT_TRUE(real_file_system().make_directory(dir));
    const SandboxConfig config{name, store_->root(), base, {}, 0, "qemu", restore};
    EXPECT_TRUE(publish_file(real_file_system(), dir / kConfigFile, to_json(config).dump()));
    STASIS_TRY(spare.client->become(dir, Milliseconds(5000)));
    spare.dir = dir;
    return {};
  }

  // `id` is what a guest was paused in that had just booted.
  void pause_booted(const std::string& name, SnapshotId& id) {
    Running booted = start(image_, name);
    ASSERT_TRUE(booted.client->state(Milliseconds(60'000)));
    await_daemon(*booted.client);
    id = SnapshotId::random();
    ASSERT_TRUE(booted.client->pause(id, Milliseconds(60'000)));
    ASSERT_TRUE(booted.process->wait(Deadline::never()));
  }

  static nlohmann::json exit_record(const Running& running) {
    std::ifstream file(running.dir / kExitFile);
    return nlohmann::json::parse(file, nullptr, false);
  }
  // Why it ends, which it does by itself.
  static ExitRecord end_of(Running& running) {
    const auto ended = running.process->wait(Deadline::after(Milliseconds(60'000)));
    EXPECT_TRUE(ended && *ended) << "it does not end";
    auto record = exit_from_json(exit_record(running));
    EXPECT_TRUE(record);
    return record ? std::move(*record) : ExitRecord{};
  }

  // One HTTP request to the guest daemon, over a socket from inside the sandbox; its first line, empty if nobody
  // answers.
  static std::string request(Client& client, const std::string& head) {
    auto socket = client.guest_socket(Transport::kTcp, Milliseconds(5000));
    if (!socket) return "";
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(49983);
    ::inet_pton(AF_INET, "172.30.0.2", &address.sin_addr);
    timeval limit{2, 0};
    ::setsockopt(socket->get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    ::setsockopt(socket->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (::connect(socket->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return "";
    const std::string text = head + " HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n";
    if (!send_all(socket->get(), std::as_bytes(std::span(text)))) return "";
    std::string answer(4096, '\0');
    const ssize_t n = ::recv(socket->get(), answer.data(), answer.size(), 0);
    return n > 0 ? answer.substr(0, answer.find('\r')) : "";
  }

  static void await_daemon(Client& client) {
    std::string answer;
    for (int attempt = 0; attempt < 600 && answer.empty(); ++attempt) {
      answer = request(client, "GET /health");
      if (answer.empty()) std::this_thread::sleep_for(Milliseconds(50));
    }
    ASSERT_THAT(answer, HasSubstr("204"));
  }

  // As the agent does it while this sandbox runs.
  static void collect_around(const Running& running) {
    std::vector<snapshot::BlockMap> roots;
    for (const char* file : {kMemoryMapFile, kDiskMapFile}) {
      const auto bytes = read_file(real_file_system(), running.dir / file, uint64_t{1} << 30).value();
      roots.push_back(snapshot::BlockMap::decode(bytes).value());
    }
    const auto collected = store_->collect(roots);
    ASSERT_TRUE(collected) << collected.error().message;
  }

  static snapshot::BlockMap map_of_memory(SnapshotId id) {
    return store_->read_map(id, *store_->load(id).value().memory_map).value();
  }
  static snapshot::LayerId layer_of_memory(SnapshotId id) { return map_of_memory(id).layers()[0]; }
  static uint64_t bytes_of_memory(SnapshotId id) { return snapshot::live_bytes(map_of_memory(id)); }

  static std::filesystem::perms permissions_of(const Path& path) { return std::filesystem::status(path).permissions(); }

  static bool mounted_outside() {
    std::ifstream table("/proc/self/mountinfo");
    const std::string text((std::istreambuf_iterator<char>(table)), {});
    return text.find("/run/stasis-vm") != std::string::npos;
  }

  static inline std::unique_ptr<testing::TempDir> root_;
  static inline std::unique_ptr<snapshot::Store> store_;
  static inline SnapshotId image_;
};

}  // namespace stasis::supervisor
