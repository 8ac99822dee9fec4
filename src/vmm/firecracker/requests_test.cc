#include "vmm/firecracker/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "vmm/contract/lab.h"
#include "vmm/contract/result_matchers.h"
#include "vmm/firecracker/memory_file.h"
#include "vmm/firecracker/version.h"

namespace stasis::vmm {
namespace {

using nlohmann::json;

MachineConfig whole_config() {
  MachineConfig config;
  config.shape = {2, 512};
  config.disk = "/run/stasis/disk";
  config.tap = "tap7";
  config.mac = "06:00:ac:1e:00:02";
  return config;
}

json body_of(const std::vector<ApiRequest>& requests, const std::string& target) {
  for (const ApiRequest& request : requests) {
    if (request.target == target) return json::parse(request.body);
  }
  return nullptr;
}

TEST(FirecrackerRequests, BootNamesEverything) {
  const auto requests = boot_requests(whole_config(), {"/k", "/i", "quiet"});
  EXPECT_EQ(body_of(requests, "/machine-config"),
            json::parse(R"({"vcpu_count":2,"mem_size_mib":512,"smt":false,"track_dirty_pages":true})"));
  const json source = body_of(requests, "/boot-source");
  EXPECT_EQ(source["kernel_image_path"], "/k");
  EXPECT_EQ(source["initrd_path"], "/i");
  EXPECT_THAT(source["boot_args"].get<std::string>(), testing::EndsWith(" quiet"));
  EXPECT_THAT(source["boot_args"].get<std::string>(), testing::StartsWith("console=ttyS0 reboot=k panic=1"));
  const json disk = body_of(requests, "/drives/disk");
  EXPECT_EQ(disk["path_on_host"], "/run/stasis/disk");
  EXPECT_EQ(disk["cache_type"], "Writeback");
  EXPECT_EQ(disk["is_root_device"], false);
  EXPECT_EQ(body_of(requests, "/network-interfaces/eth0"),
            json::parse(R"({"iface_id":"eth0","host_dev_name":"tap7","guest_mac":"06:00:ac:1e:00:02"})"));
  EXPECT_EQ(body_of(requests, "/entropy"), json::object());
}

TEST(FirecrackerRequests, BootLeavesOutWhatIsNotThere) {
  MachineConfig config;
  config.shape = {1, 128};
  const auto requests = boot_requests(config, {"/k", "", ""});
  EXPECT_FALSE(body_of(requests, "/boot-source").contains("initrd_path"));
  for (const ApiRequest& request : requests) {
    EXPECT_THAT(request.target, testing::Not(testing::HasSubstr("drives")));
    EXPECT_THAT(request.target, testing::Not(testing::HasSubstr("network")));
  }
}

TEST(FirecrackerRequests, LoadUsesThePageServerOrTheFileAndOverridesTheTap) {
  EXPECT_EQ(json::parse(load_request(whole_config(), {.state = "/s", .saved_with = {}, .uffd_socket = "/u"}).body),
            json::parse(R"({
      "snapshot_path":"/s","mem_backend":{"backend_type":"Uffd","backend_path":"/u"},"track_dirty_pages":true,
      "resume_vm":false,"network_overrides":[{"iface_id":"eth0","host_dev_name":"tap7"}]})"));
  RestoreSpec mapped{.state = "/s", .saved_with = {}};
  mapped.mapped = std::make_shared<const pager::MappedPlan>();
  mapped.mapped_file = "/m";
  EXPECT_EQ(json::parse(load_request(whole_config(), mapped).body)["mem_backend"],
            (json{{"backend_type", "File"}, {"backend_path", "/m"}}));
  MachineConfig without_network;
  EXPECT_FALSE(json::parse(load_request(without_network, {.state = "/s", .saved_with = {}, .uffd_socket = "/u"}).body)
                   .contains("network_overrides"));
}

TEST(FirecrackerRequests, APathThatIsNoTextDoesNotThrow) {
  EXPECT_NO_THROW(create_request(SnapshotType::kDiff, "/\xff", "/m"));
}

TEST(FirecrackerFaults, AreFoundInEveryForm) {
  EXPECT_EQ(fault_text(R"({"fault_message":"no"})"), "no");
  EXPECT_EQ(fault_text(R"({"error":"too long"})"), "too long");
  EXPECT_EQ(fault_text(R"({"fault_message":"no","more":{"nested":1}})"), "no");
  EXPECT_EQ(fault_text(R"({"fault_message":7})"), R"({"fault_message":7})");
  EXPECT_EQ(fault_text("plain"), "plain");
  EXPECT_EQ(fault_text("[]"), "[]");
  EXPECT_EQ(fault_text(""), "no reason given");
  EXPECT_EQ(fault_text(std::string(100'000, 'x')).size(), 1000u);
}

TEST(FirecrackerVersion, IsFoundAndChecked) {
  EXPECT_EQ(contract::value(supported_version("1.16.1")), "1.16.1");
  EXPECT_EQ(contract::value(supported_version("Firecracker v1.13.0\n\nmore 2.0")), "1.13.0");
  EXPECT_EQ(contract::value(supported_version("v1.17.0-dev")), "1.17.0-dev");
  EXPECT_EQ(contract::value(supported_version("2.0.0")), "2.0.0");
  EXPECT_FAILS(supported_version("1.12.9"), Code::kUnimplemented);
  EXPECT_FAILS(supported_version("0.25.0"), Code::kUnimplemented);
  for (const char* none : {"", "Firecracker", "16", "1.", "1.x", "."})
    EXPECT_FAILS(supported_version(none), Code::kInternal);
}

TEST(FirecrackerMemoryFile, HolesOfATemporaryDirectoryAreExact) {
  const contract::TemporaryDirectory directory;
  EXPECT_TRUE(contract::value(holes_are_exact(directory.path())));
  EXPECT_EQ(contract::value(real_file_system().list(directory.path())), std::vector<std::string>{});
  EXPECT_FAILS(holes_are_exact(directory.path() / "none"), Code::kNotFound);
}

TEST(FirecrackerMemoryFile, PartOfAPageIsRefused) {
  const contract::TemporaryDirectory directory;
  const Path file = directory.path() / "memory";
  const auto fd = real_file_system().create(file);
  ASSERT_OK(fd);
  ASSERT_OK(real_file_system().write_at(fd->get(), 0, std::vector<std::byte>(5000)));
  EXPECT_FAILS(open_memory_file(file, 8192, SnapshotType::kDiff), Code::kInternal);
  EXPECT_FAILS(open_memory_file(file, 5000, SnapshotType::kDiff), Code::kInternal);
}

TEST(KvmProbe, AnswersWithAReason) {
  const KvmProbe probe = probe_kvm();
  EXPECT_EQ(probe.works, probe.reason == "ok");
  EXPECT_FALSE(probe.reason.empty());
  RecordProperty("kvm", probe.reason);
}

}  // namespace
}  // namespace stasis::vmm
