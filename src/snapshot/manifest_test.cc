#include "snapshot/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "snapshot/testing/hostile.h"
#include "snapshot/testing/reseal.h"

namespace stasis::snapshot {
namespace {

using nlohmann::json;
using testing::Bytes;
using ::testing::HasSubstr;

Manifest sample() {
  Manifest manifest;
  manifest.id = {Uuid::parse("00112233-4455-4677-8899-aabbccddeeff").value()};
  manifest.parent = {Uuid::parse("ffeeddcc-bbaa-4988-8766-554433221100").value()};
  manifest.created_unix_ms = 1'795'000'000'123;
  manifest.machine = {2, 512};
  manifest.vmm = "qemu";
  manifest.vmm_version = "7.2.22";
  manifest.kernel = "6.1.0-40-cloud-amd64";
  manifest.cpu_model = "host";
  manifest.vm_state = Part{"state", 250'000, 0x0123456789abcdef};
  manifest.memory_map = Part{"memory.map", 184, ~uint64_t{0}};
  manifest.disk_map = Part{"disk.map", 120, 0};
  manifest.memory = {3, 4096, 8192, 1 << 20};
  manifest.disk = {2, 0, 4096, 4096};
  return manifest;
}

constexpr char kVersion1Body[] = R"({
  "cpu_model": "host",
  "created_unix_ms": 1795000000123,
  "disk": {
    "compared_bytes": 4096,
    "generation": 2,
    "stored_bytes": 0,
    "zeroed_bytes": 4096
  },
  "id": "00112233-4455-4677-8899-aabbccddeeff",
  "kernel": "6.1.0-40-cloud-amd64",
  "kind": "snapshot",
  "machine": {
    "memory_mib": 512,
    "vcpus": 2
  },
  "memory": {
    "compared_bytes": 1048576,
    "generation": 3,
    "stored_bytes": 4096,
    "zeroed_bytes": 8192
  },
  "parent": "ffeeddcc-bbaa-4988-8766-554433221100",
  "parts": {
    "disk_map": {
      "file": "disk.map",
      "size": 120,
      "xxh3": "0000000000000000"
    },
    "memory_map": {
      "file": "memory.map",
      "size": 184,
      "xxh3": "ffffffffffffffff"
    },
    "vm_state": {
      "file": "state",
      "size": 250000,
      "xxh3": "0123456789abcdef"
    }
  },
  "vmm": "qemu",
  "vmm_version": "7.2.22"
}
)";

// The envelope around any body.
Bytes seal(const std::string& body) {
  Bytes bytes = sample().encode();
  bytes.resize(32);
  for (const char c : body) bytes.push_back(static_cast<std::byte>(c));
  testing::Resealer(bytes).manifest();
  return bytes;
}

json body_of(const Bytes& bytes) {
  return json::parse(reinterpret_cast<const char*>(bytes.data()) + 32,
                     reinterpret_cast<const char*>(bytes.data()) + bytes.size());
}

// What decode() says about the sample with its JSON changed.
std::string refusal(const std::function<void(json&)>& change) {
  json body = body_of(sample().encode());
  change(body);
  const auto manifest = Manifest::decode(seal(body.dump()));
  if (manifest) return "";
  EXPECT_EQ(manifest.error().code, Code::kDataLoss);
  return manifest.error().message;
}

TEST(ManifestTest, EncodesAndDecodes) {
  EXPECT_EQ(Manifest::decode(sample().encode()).value(), sample());
  Manifest image;
  image.id = SnapshotId::random();
  image.kind = SnapshotKind::kImage;
  image.vmlinux = Part{"vmlinux", 1, 2};
  image.initrd = Part{"initrd", 3, 4};
  image.created_unix_ms = -1;
  image.disk.stored_bytes = ~uint64_t{0};
  EXPECT_EQ(Manifest::decode(image.encode()).value(), image);
}

TEST(ManifestTest, Version1IsRead) {
  Bytes golden = testing::from_hex("5354415349534d46010000000000000078030000000000000b8cdaa6a56384ad");
  for (const char c : std::string_view(kVersion1Body)) golden.push_back(static_cast<std::byte>(c));
  EXPECT_EQ(testing::hex(sample().encode()), testing::hex(golden));
  const auto manifest = Manifest::decode(golden);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(*manifest, sample());
}

TEST(ManifestTest, OnlyTheWholeFileDecodes) {
  testing::expect_only_whole(sample().encode(), [](const Bytes& bytes) { return Manifest::decode(bytes); });
}

TEST(ManifestTest, FieldsOfLaterVersionsArePassedOver) {
  EXPECT_EQ(refusal([](json& body) { body["working_set"] = {{"file", "ws"}}; }), "");
}

TEST(ManifestTest, WhatIsNotAManifestIsRefusedByName) {
  EXPECT_EQ(refusal([](json&) {}), "");
  EXPECT_THAT(refusal([](json& body) { body = json::array(); }), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal([](json& body) { body.erase("id"); }), HasSubstr("'id' is missing"));
  EXPECT_THAT(refusal([](json& body) { body["id"] = "../../etc/passwd"; }), HasSubstr("'id' is not a UUID"));
  EXPECT_THAT(refusal([](json& body) { body["id"] = 7; }), HasSubstr("'id' is not of its type"));
  EXPECT_THAT(refusal([](json& body) { body["kind"] = "template"; }), HasSubstr("'kind'"));
  EXPECT_THAT(refusal([](json& body) { body["created_unix_ms"] = 1.5; }), HasSubstr("'created_unix_ms'"));
  EXPECT_THAT(refusal([](json& body) { body["created_unix_ms"] = ~uint64_t{0}; }), HasSubstr("out of range"));
  EXPECT_THAT(refusal([](json& body) { body["machine"]["vcpus"] = -1; }), HasSubstr("'vcpus' is out of range"));
  EXPECT_THAT(refusal([](json& body) { body["machine"]["vcpus"] = uint64_t{1} << 32; }), HasSubstr("out of range"));
  EXPECT_THAT(refusal([](json& body) { body["machine"] = "large"; }), HasSubstr("'machine' is not of its type"));
  EXPECT_THAT(refusal([](json& body) { body["kernel"] = std::string(257, 'x'); }), HasSubstr("'kernel' is too long"));
  EXPECT_THAT(refusal([](json& body) { body["parts"]["vm_state"] = 3; }), HasSubstr("'vm_state' is not of its type"));
  EXPECT_THAT(refusal([](json& body) { body["parts"]["vm_state"]["size"] = "3"; }), HasSubstr("'size'"));
  for (const char* checksum :
       {"", "0", "0123456789ABCDEF", "00123456789abcdef", "0x23456789abcdef", "-123456789abcdef"}) {
    EXPECT_THAT(refusal([&](json& body) { body["parts"]["vm_state"]["xxh3"] = checksum; }), HasSubstr("hexadecimal"));
  }
  for (const char* name : {"", ".", "..", "a/b", "/etc/passwd", "manifest", "x.tmp"}) {
    EXPECT_THAT(refusal([&](json& body) { body["parts"]["vm_state"]["file"] = name; }), HasSubstr("plain name"))
        << name;
  }
  EXPECT_THAT(refusal([](json& body) { body["parts"]["vm_state"]["file"] = std::string("a\0b", 3); }),
              HasSubstr("plain name"));
}

TEST(ManifestTest, BodiesThatAreNotJsonAreRefused) {
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("{}x"), std::string(60'000, '['), std::string("\xff")}) {
    const auto manifest = Manifest::decode(seal(body));
    ASSERT_FALSE(manifest);
    EXPECT_EQ(manifest.error().code, Code::kDataLoss);
  }
  EXPECT_THAT(Manifest::decode(seal(std::string(kMaxManifestSize, ' '))).error().message, HasSubstr("too many"));
}

}  // namespace
}  // namespace stasis::snapshot
