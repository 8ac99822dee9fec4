// The page table against a model of one page: guest, kernel, page server and captures, in every order of events. The
// model is small enough to be walked through completely: every state that any sequence of events reaches is met, and in
// each every event is tried.
#include "pager/page_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace stasis::pager {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kPage = 4096;

// Contents of the page: zeros, what the snapshot may hold, what the guest writes.
enum Value : uint8_t { kZeros, kOld, kNew };
constexpr uint8_t bit_of(Value value) { return static_cast<uint8_t>(1U << value); }

enum class Remove : uint8_t { kNone, kUnread, kRead };  // of a madvise on its way: before its event is read, and after
enum class Stage : uint8_t { kNone, kTaken, kScanned, kSettled };  // of a capture on its way

struct Model {
  Value restored;  // what the page server serves
  Value base;      // what the next capture compares with: changes with each success
  // The kernel's.
  bool present = false;
  Value content = kZeros;  // if present
  bool written = false;    // since the last scan
  Remove remove = Remove::kNone;
  uint8_t faults = 0;  // not yet answered
  // The guest's: what a read may show now.
  uint8_t allowed;
  // The capture's.
  Stage stage = Stage::kNone;
  bool vcpus_stopped = false;
  bool remove_first = false;  // a REMOVE that was read before the marks were taken: it ends before the scan
  bool told = false;          // the marks that were taken and are in no snapshot yet
  bool all = false;           // a capture failed: the next one offers everything that is there
  bool candidate = false;
  Value next_base = kZeros;
  std::string wrong;

  explicit Model(Value held) : restored(held), base(held), allowed(bit_of(held)) {}
};

using Event = std::function<bool(Model&, PageTable&)>;  // false: cannot happen now

bool is_marked(const PageTable& table) { return !table.given_back().empty(); }

void show(Model& m) {
  if (m.present && (m.allowed & bit_of(m.content)) == 0) {
    m.wrong = "the guest reads " + std::to_string(m.content) + ", allowed are " + std::to_string(m.allowed);
  }
}

bool guest_touches(Model& m, PageTable& /*table*/) {
  if (m.vcpus_stopped || m.present || m.faults == 2) return false;
  ++m.faults;
  return true;
}

bool guest_writes(Model& m, PageTable& /*table*/) {
  if (m.vcpus_stopped || !m.present) return false;
  m.content = kNew;
  m.written = true;
  m.allowed = bit_of(kNew) | (m.remove == Remove::kNone ? 0 : bit_of(kZeros));
  return true;
}

bool install(Model& m, PageTable& table, bool from_snapshot) {
  if (m.present) {
    table.found(0);
    return true;
  }
  m.present = true;
  m.content = from_snapshot ? m.restored : kZeros;
  table.installed(0, 1, m.content == kZeros);
  show(m);
  return true;
}

// A VMM's thread may fault as well as a vCPU: also while those are stopped. While a REMOVE is unread the kernel answers
// EAGAIN, and the fault waits.
bool fault_is_answered(Model& m, PageTable& table) {
  if (m.faults == 0 || m.remove == Remove::kUnread) return false;
  --m.faults;
  return install(m, table, table.wants_snapshot(0));
}

bool prefetch(Model& m, PageTable& table) {
  if (!table.wants_snapshot(0) || m.remove == Remove::kUnread) return false;
  return install(m, table, true);
}

bool remove_is_sent(Model& m, PageTable& /*table*/) {
  if (m.remove != Remove::kNone) return false;
  m.remove = Remove::kUnread;
  m.allowed |= bit_of(kZeros);
  return true;
}

bool remove_is_read(Model& m, PageTable& table) {
  if (m.remove != Remove::kUnread) return false;
  m.remove = Remove::kRead;
  table.removed(0);
  return true;
}

bool remove_takes_effect(Model& m, PageTable& /*table*/) {
  if (m.remove != Remove::kRead) return false;
  m.remove = Remove::kNone;
  m.remove_first = false;
  m.present = false;
  m.allowed = bit_of(kZeros);
  return true;
}

bool capture_begins(Model& m, PageTable& table) {
  if (m.stage != Stage::kNone) return false;
  m.vcpus_stopped = true;
  m.stage = Stage::kTaken;
  m.remove_first = m.remove == Remove::kRead;
  m.told |= !table.take_given_back().empty();
  return true;
}

// The VMM saves its state in between, in the thread in which it gives memory back.
bool capture_scans(Model& m, PageTable& /*table*/) {
  if (m.stage != Stage::kTaken || m.remove_first) return false;
  m.stage = Stage::kScanned;
  m.candidate = m.present && (m.written || m.all);
  m.written = false;
  return true;
}

// What was captured is settled, and a guest that goes on does so.
bool capture_reads(Model& m, PageTable& table) {
  if (m.stage != Stage::kScanned) return false;
  m.stage = Stage::kSettled;
  m.vcpus_stopped = false;
  if (m.candidate) {
    m.next_base = m.present ? m.content : kZeros;
  } else {
    m.next_base = m.told || is_marked(table) ? kZeros : m.base;
  }
  if ((m.allowed & bit_of(m.next_base)) == 0) {
    m.wrong = "captured " + std::to_string(m.next_base) + ", allowed are " + std::to_string(m.allowed);
  }
  return true;
}

bool capture_succeeds(Model& m, PageTable& /*table*/) {
  if (m.stage != Stage::kSettled) return false;
  m.stage = Stage::kNone;
  m.base = m.next_base;
  m.told = m.all = false;
  return true;
}

bool capture_fails(Model& m, PageTable& /*table*/) {
  if (m.stage == Stage::kNone) return false;
  m.stage = Stage::kNone;
  m.vcpus_stopped = false;
  m.remove_first = false;
  m.all = true;
  return true;
}

struct Named {
  const char* name;
  Event happen;
};

const std::vector<Named> kEvents = {
    {"the guest touches", guest_touches},
    {"the guest writes", guest_writes},
    {"a fault is answered", fault_is_answered},
    {"prefetch", prefetch},
    {"a REMOVE is sent", remove_is_sent},
    {"it is read", remove_is_read},
    {"it takes effect", remove_takes_effect},
    {"a capture begins", capture_begins},
    {"it scans", capture_scans},
    {"it reads", capture_reads},
    {"it succeeds", capture_succeeds},
    {"it fails", capture_fails},
};

std::string key_of(const Model& m, const PageTable& table) {
  const auto byte = [](auto value) { return static_cast<char>(value); };
  return {byte(m.base),          byte(m.present),   byte(m.present ? m.content : kZeros),
          byte(m.written),       byte(m.remove),    byte(m.faults),
          byte(m.allowed),       byte(m.stage),     byte(m.vcpus_stopped),
          byte(m.told),          byte(m.all),       byte(m.remove_first),
          byte(m.candidate),     byte(m.next_base), byte(table.state(0)),
          byte(is_marked(table))};
}

struct Walk {
  size_t states = 0;
  std::string wrong;  // the shortest sequence of events that leads to something wrong, and what
};

// Breadth first; a state is reached again by playing the events that led to it on a fresh table.
Walk walk(Value held) {
  using Path = std::vector<size_t>;  // of kEvents
  std::map<std::string, Path> seen;
  std::vector<Path> frontier{{}};
  while (!frontier.empty()) {
    std::vector<Path> next;
    for (const Path& path : frontier) {
      for (size_t event = 0; event < kEvents.size(); ++event) {
        Model model(held);
        PageTable table(kPage, kPage);
        for (const size_t before : path) kEvents[before].happen(model, table);
        if (!kEvents[event].happen(model, table)) continue;
        Path longer = path;
        longer.push_back(event);
        if (!model.wrong.empty()) {
          for (const size_t step : longer) model.wrong += std::string("\n  ") + kEvents[step].name;
          return {seen.size(), model.wrong};
        }
        if (seen.emplace(key_of(model, table), longer).second) next.push_back(std::move(longer));
      }
    }
    frontier = std::move(next);
  }
  return {seen.size(), ""};
}

TEST(PageTableTest, NoOrderOfEventsShowsOrCapturesAnythingStale) {
  for (const Value held : {kOld, kZeros}) {
    const Walk walked = walk(held);
    EXPECT_EQ(walked.wrong, "");
    EXPECT_GT(walked.states, 1000U);
    RecordProperty(held == kOld ? "states_of_data" : "states_of_zeros", static_cast<int>(walked.states));
  }
}

// Many pages at once are the same as each by itself, wherever they begin and end.
TEST(PageTableTest, RunsAreWhatTheirPagesAre) {
  constexpr uint64_t kPages = 300;
  for (const uint64_t first : {0, 1, 63, 64, 65, 127, 200}) {
    for (const uint64_t count : {0, 1, 2, 62, 63, 64, 65, 100}) {
      PageTable table(kPages * kPage, kPage);
      table.removed(70);
      table.installed(first, count, false);
      const auto wanted = [&](uint64_t page) { return page != 70 && (page < first || page >= first + count); };
      for (uint64_t page = 0; page < kPages; ++page) {
        ASSERT_EQ(table.wants_snapshot(page), wanted(page)) << first << "+" << count << ": " << page;
        ASSERT_EQ(table.is_installed(page), page >= first && page < first + count);
        for (const uint64_t end : {page, page + 1, kPages}) {
          uint64_t at = page;
          while (at < end && !wanted(at)) ++at;
          ASSERT_EQ(table.next_wanted(page, end), at) << first << "+" << count << ": " << page << " to " << end;
          at = page;
          while (at < end && wanted(at)) ++at;
          ASSERT_EQ(table.end_of_wanted(page, end), at) << first << "+" << count << ": " << page << " to " << end;
        }
      }
    }
  }
}

TEST(PageTableTest, MarksAreToldMergedAndTakenOnce) {
  PageTable table(200 * kPage, kPage);
  for (uint64_t page = 60; page < 70; ++page) table.removed(page);
  for (const uint64_t page : {0, 127, 128, 199}) table.removed(page);
  const auto all = ElementsAre(Range{0, kPage}, Range{60 * kPage, 10 * kPage}, Range{127 * kPage, 2 * kPage},
                               Range{199 * kPage, kPage});
  EXPECT_THAT(table.given_back(), all);
  EXPECT_THAT(table.take_given_back(), all);
  EXPECT_THAT(table.take_given_back(), IsEmpty());
  EXPECT_EQ(table.state(65), PageState::kRemoved);
}

TEST(PageTableTest, HugePagesAreToldInBytes) {
  constexpr uint64_t kHuge = uint64_t{2} << 20;
  PageTable table(4 * kHuge, kHuge);
  table.removed(1);
  EXPECT_THAT(table.take_given_back(), ElementsAre(Range{kHuge, kHuge}));
}

}  // namespace
}  // namespace stasis::pager
