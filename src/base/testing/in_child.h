// Runs a piece of a test in a child process: for what changes the process itself (namespaces, users). Root is needed
// for most.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <functional>
#include <string>
#include <string_view>

namespace stasis::testing {

// What a child process wrote to its pipe before it ended, and how it ended (a wait status).
struct ChildEnd {
  std::string text;
  int wait_status = 0;
};

// Sends text to the parent at once.
using Tell = std::function<void(std::string_view)>;

// Runs `body` in a child, whose exit status is 0 if it returns.
inline ChildEnd run_child(const std::function<void(const Tell&)>& body) {
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return {"pipe failed", -1};
  const pid_t child = ::fork();
  if (child < 0) return {"fork failed", -1};
  if (child == 0) {
    const Tell tell = [&](std::string_view text) {
      if (::write(pipe_fds[1], text.data(), text.size()) != static_cast<ssize_t>(text.size())) ::_exit(1);
    };
    try {
      body(tell);
    } catch (const std::exception& error) {
      tell(error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  ::close(pipe_fds[1]);
  ChildEnd end;
  char buffer[512];
  for (ssize_t n; (n = ::read(pipe_fds[0], buffer, sizeof buffer)) > 0;)
    end.text.append(buffer, static_cast<size_t>(n));
  ::close(pipe_fds[0]);
  ::waitpid(child, &end.wait_status, 0);
  return end;
}

// What `body` returns, in a child: by convention the empty string, or what went wrong. A child that dies is told as
// well.
inline std::string in_child(const std::function<std::string()>& body) {
  const ChildEnd end = run_child([&](const Tell& tell) { tell(body()); });
  if (end.wait_status == 0) return end.text;
  return end.text + " (the child ended with wait status " + std::to_string(end.wait_status) + ")";
}

}  // namespace stasis::testing
