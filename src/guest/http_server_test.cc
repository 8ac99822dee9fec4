#include "guest/http_server.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <latch>
#include <thread>
#include <vector>

#include "base/testing/eventually.h"
#include "guest/daemon_client.h"

namespace stasis::guest {
namespace {

using stasis::testing::eventually;

size_t threads_of_this_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

// Threads of this process that wait in accept().
size_t waiting_threads() {
  size_t waiting = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    int call = -1;
    if (std::ifstream(task.path() / "syscall") >> call && call == SYS_accept4) ++waiting;
  }
  return waiting;
}

class HttpServerTest : public ::testing::Test {
 protected:
  void serve(Handler handler, size_t max_connections = 256) {
    UniqueFd listener = listen_on("127.0.0.1", 0);
    port_ = bound_port(listener.get());
    server_ = std::make_unique<HttpServer>(std::move(listener), std::move(handler), max_connections);
    server_->start();
  }
  void ask() const { EXPECT_EQ(DaemonClient(port_).request(http::verb::get, "/").status, 200); }
  void ask_in_a_thread(std::vector<std::thread>& clients) const {
    clients.emplace_back([this] { ask(); });
  }

  uint16_t port_ = 0;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, ConnectionsOneAfterTheOtherNeedNoNewThreads) {
  std::mutex mutex;
  std::set<pid_t> threads;
  serve([&](Exchange& exchange) {
    {
      const std::lock_guard lock(mutex);
      threads.insert(gettid());
    }
    exchange.send(200, {}, "");  // from then on the test may be over, and the mutex gone
  });
  const size_t before = threads_of_this_process();
  for (int i = 0; i < 30; ++i) {
    EXPECT_TRUE(eventually([] { return waiting_threads() == 3; }));
    ask();
  }
  EXPECT_LE(threads_of_this_process(), before);
  EXPECT_EQ(threads.size(), 3U);
}

TEST_F(HttpServerTest, ThreadsComeWhenAllAreBusyAndGoAgain) {
  constexpr int kClients = 20;
  std::latch all_here(kClients);
  serve([&](Exchange& exchange) {
    all_here.arrive_and_wait();
    exchange.send(200, {}, "");
  });
  const size_t before = threads_of_this_process();
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) ask_in_a_thread(clients);
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(eventually([&] { return threads_of_this_process() <= before; }));
}

TEST_F(HttpServerTest, MoreThanMayBeAtOnceWait) {
  constexpr int kAtOnce = 3;
  std::latch go_on(1);
  std::mutex mutex;
  std::condition_variable entered;
  int now = 0;
  int most = 0;
  serve(
      [&](Exchange& exchange) {
        {
          const std::lock_guard lock(mutex);
          most = std::max(most, ++now);
          entered.notify_all();
        }
        go_on.wait();
        {
          const std::lock_guard lock(mutex);
          --now;
        }
        exchange.send(200, {}, "");
      },
      kAtOnce);
  std::vector<std::thread> clients;
  for (int i = 0; i < kAtOnce; ++i) ask_in_a_thread(clients);
  {
    std::unique_lock lock(mutex);
    entered.wait(lock, [&] { return now == kAtOnce; });
  }
  ask_in_a_thread(clients);
  go_on.count_down();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(most, kAtOnce);
}

int option_of(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  EXPECT_EQ(getsockopt(fd, level, name, &value, &size), 0);
  return value;
}

TEST_F(HttpServerTest, AConnectionGivesUpOnAPeerThatVanished) {
  std::vector<int> options;
  serve([&](Exchange& exchange) {
    const int fd = exchange.socket().fd();
    for (const int name : {TCP_NODELAY, TCP_USER_TIMEOUT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT})
      options.push_back(option_of(fd, IPPROTO_TCP, name));
    options.push_back(option_of(fd, SOL_SOCKET, SO_KEEPALIVE));
    exchange.send(200, {}, "");
  });
  ask();
  EXPECT_EQ(options, (std::vector<int>{1, 30'000, 15, 5, 3, 1}));
}

TEST_F(HttpServerTest, StopEndsOpenConnectionsAndEveryThread) {
  const size_t before = threads_of_this_process();
  serve([](Exchange& exchange) {
    exchange.begin_stream(200, {});
    while (exchange.write("x")) usleep(1000);
  });
  DaemonClient client(port_);
  std::vector<std::unique_ptr<DaemonClient::Stream>> open(5);
  for (auto& one : open) one = client.stream("endless", nlohmann::json::object());
  server_->stop();
  EXPECT_TRUE(eventually([&] { return threads_of_this_process() <= before; }));
  server_->stop();  // again, and at its end once more
}

}  // namespace
}  // namespace stasis::guest
