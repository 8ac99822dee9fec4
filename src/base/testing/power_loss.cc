#include "base/testing/power_loss.h"

#include <algorithm>
#include <span>

namespace stasis::testing {
namespace {

size_t below(std::mt19937_64& random, size_t end) { return std::uniform_int_distribution<size_t>(0, end - 1)(random); }

// How much of what was not synced has arrived. All kinds of discs occur: those that lose everything or nothing, those
// that keep the order and stop somewhere, those that have only the newest, and, most often, those that keep no order.
enum class Loss { kEverything, kNothing, kFromSomewhereOn, kUntilSomewhere, kAnything };
Loss any_loss(std::mt19937_64& random) { return static_cast<Loss>(std::min<size_t>(below(random, 6), 4)); }

void copy_sector(const Content& from, size_t at, Content& to) {
  const size_t end = std::min({at + kSector, from.size(), to.size()});
  if (at < end) {
    std::copy(from.begin() + static_cast<ptrdiff_t>(at), from.begin() + static_cast<ptrdiff_t>(end),
              to.begin() + static_cast<ptrdiff_t>(at));
  }
}

// The same, and zeros where `from` ends.
void set_sector(const Content& from, size_t at, Content& to) {
  if (at >= to.size()) return;
  std::fill_n(to.begin() + static_cast<ptrdiff_t>(at), std::min(kSector, to.size() - at), std::byte{0});
  copy_sector(from, at, to);
}

std::set<size_t> sectors_of(std::span<const UnsyncedChange> changes) {
  std::set<size_t> result;
  for (const UnsyncedChange& change : changes) {
    const size_t end = change.offset + change.data.size();
    for (size_t at = change.offset / kSector * kSector; at < end; at += kSector) result.insert(at);
  }
  return result;
}

// `live` as a disk has it that never got what was lost.
Content without_lost(const Node& file, Content live) {
  for (const size_t at : file.lost) set_sector(file.synced, at, live);
  return live;
}

// The file after each of its changes, the synced state first.
std::vector<Content> versions_of(const Node& file, const std::optional<Content>& live) {
  std::vector<Content> versions{file.synced};
  for (const UnsyncedChange& change : file.unsynced) {
    Content next = versions.back();
    if (change.new_size) {
      next.resize(*change.new_size);
    } else {
      next.resize(std::max<size_t>(next.size(), change.offset + change.data.size()));
      std::copy(change.data.begin(), change.data.end(), next.begin() + static_cast<ptrdiff_t>(change.offset));
    }
    versions.push_back(std::move(next));
  }
  // Written past the seam.
  if (live) {
    Content now = without_lost(file, *live);
    if (now != versions.back()) versions.push_back(std::move(now));
  }
  return versions;
}

bool same_sector(const Content& a, const Content& b, size_t at) {
  const auto sector = [&](const Content& content) {
    Content bytes(kSector);
    if (at < content.size()) {
      std::copy_n(content.begin() + static_cast<ptrdiff_t>(at), std::min(kSector, content.size() - at), bytes.begin());
    }
    return bytes;
  };
  return sector(a) == sector(b);
}

Content torn(const std::vector<Content>& versions, std::mt19937_64& random) {
  const size_t last = below(random, versions.size());
  if (last == 0) return versions.front();
  const Content& old = versions[last - 1];
  Content result = versions[last];
  const size_t cut = below(random, result.size() / kSector + 1) * kSector;
  for (size_t at = cut; at < result.size(); at += kSector) {
    set_sector(old, at, result);
  }
  return result;
}

Content mixed(const std::vector<Content>& versions, std::mt19937_64& random) {
  Content result(versions[below(random, versions.size())].size());
  const bool stale = below(random, 4) == 0;
  for (size_t at = 0; at < result.size(); at += kSector) {
    const Content& from = versions[below(random, versions.size())];
    copy_sector(from, at, result);
    // A new sector whose data did not arrive shows what was on the disk before.
    if (stale && at >= from.size() && !same_sector(versions.front(), versions.back(), at)) {
      std::fill_n(result.begin() + static_cast<ptrdiff_t>(at), std::min(kSector, result.size() - at), std::byte{0xdb});
    }
  }
  return result;
}

}  // namespace

void Node::sync(Content live) {
  for (const size_t at : sectors_of(unsynced)) lost.erase(at);
  synced = without_lost(*this, std::move(live));
  unsynced.clear();
}

void Node::fail_sync() {
  lost.merge(sectors_of(unsynced));
  unsynced.clear();
}

void Node::apply_entries() {
  for (auto& [name, node] : unsynced_entries) {
    if (node) {
      synced_entries[name] = std::move(node);
    } else {
      synced_entries.erase(name);
    }
  }
  unsynced_entries.clear();
}

Content content_after_loss(const Node& file, const std::optional<Content>& live, std::mt19937_64& random) {
  const std::vector<Content> versions = versions_of(file, live);
  switch (any_loss(random)) {
    case Loss::kEverything:
      return versions.front();
    case Loss::kNothing:
      return versions.back();
    case Loss::kFromSomewhereOn:
      return torn(versions, random);
    case Loss::kUntilSomewhere:
    case Loss::kAnything:
      break;
  }
  return mixed(versions, random);
}

std::map<std::string, NodePtr> entries_after_loss(const Node& directory, std::mt19937_64& random) {
  Node result;
  result.synced_entries = directory.synced_entries;
  const auto& changes = directory.unsynced_entries;
  const Loss loss = any_loss(random);
  const size_t begin = loss == Loss::kUntilSomewhere ? below(random, changes.size() + 1) : 0;
  const size_t end = loss == Loss::kFromSomewhereOn ? below(random, changes.size() + 1) : changes.size();
  if (loss == Loss::kEverything) return result.synced_entries;
  for (size_t i = begin; i < end; ++i) {
    if (loss != Loss::kAnything || below(random, 2) == 0) result.unsynced_entries.push_back(changes[i]);
  }
  result.apply_entries();
  return result.synced_entries;
}

}  // namespace stasis::testing
