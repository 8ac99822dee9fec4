// Tells waiting code, by a descriptor, that a gRPC call was cancelled: the synchronous API can only be asked.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <thread>

#include "base/poll.h"

namespace stasis::agent {

class CancelWatch {
 public:
  static Result<std::unique_ptr<CancelWatch>> start(grpc::ServerContext* context) {
    STASIS_ASSIGN(Event cancelled, Event::create());
    STASIS_ASSIGN(Event done, Event::create());
    return std::unique_ptr<CancelWatch>(new CancelWatch(context, std::move(cancelled), std::move(done)));
  }
  ~CancelWatch() {
    done_.set();
    thread_.join();
  }
  CancelWatch(const CancelWatch&) = delete;
  CancelWatch& operator=(const CancelWatch&) = delete;
  int fd() const { return cancelled_.fd(); }

 private:
  CancelWatch(grpc::ServerContext* context, Event cancelled, Event done)
      : cancelled_(std::move(cancelled)), done_(std::move(done)) {
    thread_ = std::thread([this, context] {
      for (;;) {
        auto finished = wait_readable(done_.fd(), Deadline::after(Milliseconds(50)));
        if (!finished || *finished) return;
        if (context->IsCancelled()) {
          cancelled_.set();
          return;
        }
      }
    });
  }
  Event cancelled_;
  Event done_;
  std::thread thread_;
};

}  // namespace stasis::agent
