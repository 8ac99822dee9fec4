#include "snapshot/manifest.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "snapshot/checksum.h"
#include "snapshot/crc32c.h"
#include "snapshot/wire.h"

namespace stasis::snapshot {
namespace {

using nlohmann::json;

constexpr std::array<char, 8> kMagic = {'S', 'T', 'A', 'S', 'I', 'S', 'M', 'F'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderSize = 32;
constexpr size_t kHeadCrcAt = 28;
constexpr size_t kMaxText = 256;

tl::unexpected<Error> bad(const std::string& what) { return fail(Code::kDataLoss, "the manifest " + what); }

json to_json(const Part& part) {
  return {{"file", part.file}, {"size", part.size}, {"xxh3", checksum_text(part.checksum)}};
}

json to_json(const GenerationStats& stats) {
  return {{"generation", stats.generation},
          {"stored_bytes", stats.stored_bytes},
          {"zeroed_bytes", stats.zeroed_bytes},
          {"compared_bytes", stats.compared_bytes}};
}

void add_part(json& parts, const char* name, const std::optional<Part>& part) {
  if (part) parts[name] = to_json(*part);
}

// Reads fields of one object and remembers the first that is missing or not what it should be.
class Fields {
 public:
  explicit Fields(const json& object, std::string& fault) : object_(object), fault_(fault) {}

  std::string text(const char* name) {
    const json* value = find(name, &json::is_string);
    if (value == nullptr) return {};
    const auto& text = value->get_ref<const std::string&>();
    if (text.size() > kMaxText) return refuse(name, "is too long"), std::string{};
    return text;
  }

  template <typename T>
  T number(const char* name) {
    const json* value = find(name, &json::is_number_integer);
    if (value == nullptr) return 0;
    if (value->is_number_unsigned() ? !std::in_range<T>(value->get<uint64_t>())
                                    : !std::in_range<T>(value->get<int64_t>())) {
      return refuse(name, "is out of range"), T{0};
    }
    return value->get<T>();
  }

  Uuid uuid(const char* name) {
    auto uuid = Uuid::parse(text(name));
    if (!uuid) return refuse(name, "is not a UUID"), Uuid{};
    return *uuid;
  }

  uint64_t hex(const char* name) {
    const std::string digits = text(name);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc{} || digits != checksum_text(value)) refuse(name, "is not 16 hexadecimal digits");
    return value;
  }

  Fields object(const char* name) {
    static const json kEmpty = json::object();
    const json* value = find(name, &json::is_object);
    return Fields(value == nullptr ? kEmpty : *value, fault_);
  }

  bool has(const char* name) const { return object_.contains(name); }

  void refuse(const char* name, const char* why) {
    if (fault_.empty()) fault_ = std::string("is wrong: '") + name + "' " + why;
  }

 private:
  const json* find(const char* name, bool (json::*type)() const) {
    const auto at = object_.find(name);
    if (at == object_.end()) return refuse(name, "is missing"), nullptr;
    if (!((*at).*type)()) return refuse(name, "is not of its type"), nullptr;
    return &*at;
  }
  const json& object_;
  std::string& fault_;
};

std::optional<Part> read_part(Fields parts, const char* name) {
  if (!parts.has(name)) return std::nullopt;
  Fields fields = parts.object(name);
  Part part{fields.text("file"), fields.number<uint64_t>("size"), fields.hex("xxh3")};
  if (!is_part_name(part.file)) fields.refuse("file", "is not a plain name");
  return part;
}

GenerationStats read_stats(Fields fields) {
  return {fields.number<uint64_t>("generation"), fields.number<uint64_t>("stored_bytes"),
          fields.number<uint64_t>("zeroed_bytes"), fields.number<uint64_t>("compared_bytes")};
}

SnapshotKind read_kind(Fields& fields) {
  const std::string kind = fields.text("kind");
  if (kind != "image" && kind != "snapshot") fields.refuse("kind", "is neither image nor snapshot");
  return kind == "image" ? SnapshotKind::kImage : SnapshotKind::kSnapshot;
}

Result<std::span<const std::byte>> open_envelope(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderSize) return bad("has " + std::to_string(bytes.size()) + " bytes: shorter than its header");
  if (bytes.size() > kMaxManifestSize) return bad("has " + std::to_string(bytes.size()) + " bytes: too many");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return bad("does not start with STASISMF");
  WireReader in(bytes.subspan(kMagic.size()));
  const uint32_t version = in.u32();
  if (version != kVersion) return bad("is of version " + std::to_string(version) + "; this program reads 1");
  const uint32_t reserved = in.u32();
  const uint64_t length = in.u64();
  const uint32_t body_crc = in.u32();
  if (in.u32() != crc32c(bytes.first(kHeadCrcAt))) return bad("has a damaged header");
  if (reserved != 0) return bad("uses a reserved field");
  const auto body = bytes.subspan(kHeaderSize);
  if (length != body.size()) {
    return bad("has " + std::to_string(body.size()) + " bytes behind its header instead of " + std::to_string(length));
  }
  if (crc32c(body) != body_crc) return bad("is damaged");
  return body;
}

}  // namespace

bool is_part_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." && name != kManifestFile &&
         !name.ends_with(".tmp") && name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

std::vector<Part> Manifest::parts() const {
  std::vector<Part> there;
  for (const auto& part : {vm_state, memory_map, disk_map, vmlinux, initrd}) {
    if (part) there.push_back(*part);
  }
  return there;
}

std::vector<Part> Manifest::maps() const {
  std::vector<Part> there;
  for (const auto& part : {memory_map, disk_map}) {
    if (part) there.push_back(*part);
  }
  return there;
}

std::vector<std::byte> Manifest::encode() const {
  json parts = json::object();
  add_part(parts, "vm_state", vm_state);
  add_part(parts, "memory_map", memory_map);
  add_part(parts, "disk_map", disk_map);
  add_part(parts, "vmlinux", vmlinux);
  add_part(parts, "initrd", initrd);
  const json object = {
      {"id", id.text()},
      {"kind", kind == SnapshotKind::kImage ? "image" : "snapshot"},
      {"parent", parent.text()},
      {"created_unix_ms", created_unix_ms},
      {"machine", {{"vcpus", machine.vcpus}, {"memory_mib", machine.memory_mib}}},
      {"vmm", vmm},
      {"vmm_version", vmm_version},
      {"kernel", kernel},
      {"cpu_model", cpu_model},
      {"parts", std::move(parts)},
      {"memory", to_json(memory)},
      {"disk", to_json(disk)},
  };
  // Text that is not UTF-8 is replaced; who publishes notices, because the manifest does not read back as it was.
  const std::string body = object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  WireWriter out(kHeaderSize + body.size());
  out.append(kMagic.data(), kMagic.size());
  out.u32(kVersion);
  out.u32(0);
  out.u64(body.size());
  out.u32(crc32c(std::as_bytes(std::span(body))));
  out.u32(crc32c(out.bytes()));
  out.append(body.data(), body.size());
  return out.take();
}

Result<Manifest> Manifest::decode(std::span<const std::byte> bytes) {
  STASIS_ASSIGN(const auto body, open_envelope(bytes));
  const auto* text = reinterpret_cast<const char*>(body.data());
  const json object = json::parse(text, text + body.size(), nullptr, false);
  if (!object.is_object()) return bad("is not a JSON object");
  std::string fault;
  Fields fields(object, fault);
  Manifest manifest;
  manifest.id.uuid = fields.uuid("id");
  manifest.kind = read_kind(fields);
  manifest.parent.uuid = fields.uuid("parent");
  manifest.created_unix_ms = fields.number<int64_t>("created_unix_ms");
  Fields machine = fields.object("machine");
  manifest.machine = {machine.number<uint32_t>("vcpus"), machine.number<uint32_t>("memory_mib")};
  manifest.vmm = fields.text("vmm");
  manifest.vmm_version = fields.text("vmm_version");
  manifest.kernel = fields.text("kernel");
  manifest.cpu_model = fields.text("cpu_model");
  const Fields parts = fields.object("parts");
  manifest.vm_state = read_part(parts, "vm_state");
  manifest.memory_map = read_part(parts, "memory_map");
  manifest.disk_map = read_part(parts, "disk_map");
  manifest.vmlinux = read_part(parts, "vmlinux");
  manifest.initrd = read_part(parts, "initrd");
  manifest.memory = read_stats(fields.object("memory"));
  manifest.disk = read_stats(fields.object("disk"));
  if (!fault.empty()) return bad(fault);
  return manifest;
}

}  // namespace stasis::snapshot
