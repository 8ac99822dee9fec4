#include "disk/fuse_export.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <vector>

#include "base/fuse_device.h"
#include "base/log.h"
#include "base/namespaces.h"
#include "disk/fuse_file_system.h"

namespace stasis::disk {
namespace {

// A guest's requests wait for storage, not for a processor; the kernel sends writes to one file one at a time anyway.
constexpr int kThreads = 4;

struct CloseSession {
  void operator()(fuse_session* session) const { fuse_session_destroy(session); }  // closes its descriptor
};
using Session = std::unique_ptr<fuse_session, CloseSession>;

Result<Session> make_session(FuseFileSystem& file_system, UniqueFd device) {
  char name[] = "stasis";
  char* argv[] = {name, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  const fuse_lowlevel_ops& operations = FuseFileSystem::operations();
  Session session(fuse_session_new(&args, &operations, sizeof operations, &file_system));
  fuse_opt_free_args(&args);
  if (!session) return fail(Code::kInternal, "make FUSE session");
  // libfuse takes a connection that is mounted already under this name.
  const std::string path = "/dev/fd/" + std::to_string(device.get());
  if (fuse_session_mount(session.get(), path.c_str()) != 0) return fail(Code::kInternal, "hand over FUSE connection");
  (void)device.release();
  return session;
}

}  // namespace

struct FuseExport::State {
  State(CowDisk& disk, Path path, Event event)
      : size(disk.size()), mount_point(std::move(path)), failed(std::move(event)), file_system(disk, failed) {}

  void serve() const;
  Status start();
  void stop();

  const uint64_t size;
  const Path mount_point;
  const Event failed;
  FuseFileSystem file_system;
  bool mounted = false;
  Session session;
  std::unique_ptr<RequestQueue> requests;
  std::atomic<bool> stopping = false;
  std::vector<std::thread> threads;
};

void FuseExport::State::serve() const {
  fuse_buf buffer{};
  while (!stopping) {
    const int n = fuse_session_receive_buf(session.get(), &buffer);
    if (n > 0) {
      fuse_session_process_buf(session.get(), &buffer);
    } else if (n == -EAGAIN) {
      if (!requests->wait().value_or(false)) break;
    } else if (n != -EINTR) {
      break;  // unmounted
    }
  }
  std::free(buffer.mem);
}

Status FuseExport::State::start() {
  STASIS_ASSIGN(UniqueFd device, mount_fuse(mount_point));
  mounted = true;
  STASIS_ASSIGN(requests, RequestQueue::create(device.get()));
  STASIS_ASSIGN(session, make_session(file_system, std::move(device)));
  try {
    for (int i = 0; i < kThreads; ++i) threads.emplace_back([this] { serve(); });
  } catch (const std::system_error& error) {
    return fail_errno(error.code().value(), "start FUSE thread");
  }
  return {};
}

// Detaching first means that nobody new comes; closing the connection at the end (with the session) frees whoever still
// waits.
void FuseExport::State::stop() {
  if (mounted) {
    if (Status status = unmount(mount_point); !status) spdlog::warn("{}", status.error().message);
    mounted = false;
  }
  stopping = true;
  if (requests) requests->stop();
  for (std::thread& thread : threads) thread.join();
  threads.clear();
  session.reset();
}

Result<std::unique_ptr<FuseExport>> FuseExport::mount(CowDisk& disk, const Path& mount_point) {
  STASIS_ASSIGN(Event failed, Event::create());
  auto state = std::make_unique<State>(disk, mount_point, std::move(failed));
  std::unique_ptr<FuseExport> result(new FuseExport(std::move(state)));
  STASIS_TRY(result->state_->start());
  return result;
}

FuseExport::FuseExport(std::unique_ptr<State> state) : state_(std::move(state)) {}

FuseExport::~FuseExport() { state_->stop(); }

Status FuseExport::show(CowDisk& disk) {
  if (disk.size() != state_->size) return fail(Code::kInvalidArgument, "the disk is of another size than its file");
  state_->file_system.show(disk);
  return {};
}

Path FuseExport::file() const { return file_in(state_->mount_point); }
Path FuseExport::file_in(const Path& mount_point) { return mount_point / kFileName; }

int FuseExport::failed_fd() const { return state_->failed.fd(); }

std::optional<Error> FuseExport::failure() const { return state_->file_system.failure(); }

}  // namespace stasis::disk
