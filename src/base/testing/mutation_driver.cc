// Runs a fuzz target (LLVMFuzzerTestOneInput) without libFuzzer, in every build: on each file of the corpus given, and
// on so many mutations of them, always the same ones. The memory that the target holds for one input is bounded by a
// multiple of its size, and a constant for what it always needs. libFuzzer itself, which looks for new paths, is `make
// fuzz`.
//   usage: PROGRAM MUTATIONS CORPUS_DIRECTORY [KIB_ALWAYS_NEEDED]
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/testing/count_heap.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

constexpr size_t kMaxInput = 64 * 1024;
// A JSON value is 16 bytes, and an empty one that holds another takes two allocations: about 100 bytes for each byte of
// "[[[[". Numbers come from outside: what believed one of them would be far beyond this.
constexpr size_t kHeapPerByte = 200;
size_t heap_base = 256 * 1024;

const Input* current = nullptr;

void keep_input(int signal) {
  const char text[] = "the input that did it is in fuzz-crash\n";
  (void)!::write(STDERR_FILENO, text, sizeof text - 1);
  if (current != nullptr) {
    std::FILE* file = std::fopen("fuzz-crash", "wb");
    if (file != nullptr) {
      (void)std::fwrite(current->data(), 1, current->size(), file);
      (void)std::fclose(file);
    }
  }
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void run(const Input& input) {
  current = &input;
  const size_t held = stasis::testing::heap_held_by([&] { LLVMFuzzerTestOneInput(input.data(), input.size()); });
  if (held > heap_base + kHeapPerByte * input.size()) {
    std::fprintf(stderr, "%zu bytes of heap for an input of %zu\n", held, input.size());
    std::abort();
  }
}

class Mutator {
 public:
  explicit Mutator(std::vector<Input> corpus) : corpus_(std::move(corpus)) {}

  Input next() {
    Input input = corpus_[below(corpus_.size())];
    for (size_t i = below(4) + 1; i > 0; --i) mutate(input);
    if (input.size() > kMaxInput) input.resize(kMaxInput);
    return input;
  }

 private:
  size_t below(size_t end) { return std::uniform_int_distribution<size_t>(0, end - 1)(random_); }
  Input::iterator at(Input& input, size_t position) { return input.begin() + static_cast<ptrdiff_t>(position); }

  void mutate(Input& input) {
    if (input.empty()) input.push_back(static_cast<uint8_t>(random_()));
    const size_t position = below(input.size());
    switch (below(7)) {
      case 0:
        input[position] ^= static_cast<uint8_t>(1U << below(8));
        return;
      case 1:
        input[position] = static_cast<uint8_t>(random_());
        return;
      case 2:
        return set_number(input, position);
      case 3:
        input.resize(position);
        return;
      case 4:
        input.erase(at(input, position),
                    at(input, position + below(std::min<size_t>(32, input.size() - position) + 1)));
        return;
      case 5: {  // a piece again, somewhere
        const size_t length = below(std::min<size_t>(64, input.size() - position) + 1);
        const Input piece(at(input, position), at(input, position + length));
        input.insert(at(input, below(input.size() + 1)), piece.begin(), piece.end());
        return;
      }
      default: {  // the end of another
        const Input& other = corpus_[below(corpus_.size())];
        input.resize(position);
        if (position < other.size())
          input.insert(input.end(), other.begin() + static_cast<ptrdiff_t>(position), other.end());
        return;
      }
    }
  }

  // Counts, sizes and offsets are where the harm is.
  void set_number(Input& input, size_t position) {
    static constexpr uint64_t kNumbers[] = {0,
                                            1,
                                            2,
                                            4095,
                                            4096,
                                            65535,
                                            65536,
                                            1U << 24,
                                            1U << 31,
                                            0xffffffff,
                                            uint64_t{1} << 32,
                                            uint64_t{1} << 44,
                                            uint64_t{1} << 63,
                                            ~uint64_t{0}};
    const uint64_t number = kNumbers[below(std::size(kNumbers))] + below(3) - 1;
    const size_t width = size_t{1} << below(4);
    position -= position % width;
    for (size_t i = 0; i < width && position + i < input.size(); ++i) {
      input[position + i] = static_cast<uint8_t>(number >> (8 * i));
    }
  }

  std::mt19937_64 random_{1};
  const std::vector<Input> corpus_;
};

std::vector<Input> read_corpus(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<Input> corpus{{}};
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: %s MUTATIONS CORPUS_DIRECTORY [KIB_ALWAYS_NEEDED]\n", argv[0]);
    return 2;
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) ::signal(signal, keep_input);
  if (argc == 4) heap_base = std::stoull(argv[3]) * 1024;
  const std::vector<Input> corpus = read_corpus(argv[2]);
  if (corpus.size() < 2) {
    std::fprintf(stderr, "%s has no corpus\n", argv[2]);
    return 2;
  }
  for (const Input& input : corpus) run(input);
  Mutator mutator(corpus);
  const uint64_t mutations = std::stoull(argv[1]);
  for (uint64_t i = 0; i < mutations; ++i) run(mutator.next());
  std::printf("%zu files, %lu mutations\n", corpus.size() - 1, mutations);
  return 0;
}
