// This machine's kernel as an older one, for a whole test program and all that it starts, QEMU and a supervisor among
// them: uname() tells another release, and what that one does not have yet is refused as it would refuse it. Of Linux
// before 6.7 that is PAGEMAP_SCAN (ENOTTY) and a userfaultfd with asynchronous write-protection (EINVAL). It is done by
// a filter of system calls (seccomp, user notification): nothing of what is tested is built or told otherwise. (What a
// userfaultfd offers to who asks for nothing is not taken back.)
#pragma once

#include <functional>
#include <string>

namespace stasis::testing {

// Runs `program` in a child process that, with all its descendants, has such a kernel: what it returns. Before any
// thread is started; returns in the caller only. Nothing where a filter like that is refused (to who is not root, or
// where a container has one already): that is then said, and 77 returned.
int run_on_older_kernel(const std::string& release, const std::function<int()>& program);

}  // namespace stasis::testing
