// Archives that arrive at the agent, and break on the way: at the sender, at a limit, at the agent itself.
#include "agent/testing/agent_fixture.h"
#include "snapshot/testing/archived.h"

namespace stasis::agent {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

std::string new_id() { return Uuid::random().text(); }

class AgentImportTest : public AgentFixture {
 protected:
  void SetUp() override {}  // each test says when, and which

  // An archive of an agent, of a guest with so much noise in its memory.
  static std::string make_archive(uint64_t mebibytes) {
    using namespace snapshot::testing;
    FaultyStore store;
    Random random(3);
    Memory memory(mebibytes << 20);
    for (uint64_t i = 0; i < mebibytes; ++i) memory.write(i << 20, random_bytes(random, 1 << 20));
    Disk disk(store, 24 * snapshot::kBlockSize);
    const Bytes bytes = snapshot::testing::make_archive(store, memory, disk, R"({"name":"warm","access_token":"t"})");
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  static const std::string& small_archive() {
    static const std::string archive = make_archive(1);
    return archive;
  }
  // So large that what has come is kept on the way.
  static const std::string& large_archive() {
    static const std::string archive = make_archive(48);
    return archive;
  }
  uint64_t arrived() const {
    std::error_code none;
    const auto size = std::filesystem::file_size(state() / "store/imports" / stream_ / "archive", none);
    return none ? 0 : size;
  }

  struct Upload {
    grpc::ClientContext context;
    v1::ImportSnapshotReply reply;
    std::unique_ptr<grpc::ClientWriter<v1::ImportSnapshotRequest>> writer;
  };
  std::unique_ptr<Upload> open(const std::string& id, const v1::KeptImport& from = {}) {
    auto upload = std::make_unique<Upload>();
    upload->writer = stub_->ImportSnapshot(&upload->context, &upload->reply);
    v1::ImportSnapshotRequest message;
    message.mutable_open()->set_snapshot_id(id);
    message.mutable_open()->set_stream(stream_);
    message.mutable_open()->set_kept_bytes(from.bytes());
    message.mutable_open()->set_kept_checksum(from.checksum());
    EXPECT_TRUE(upload->writer->Write(message));
    return upload;
  }
  static void send(Upload& upload, std::string_view bytes) {
    v1::ImportSnapshotRequest message;
    for (; !bytes.empty(); bytes.remove_prefix(std::min<size_t>(bytes.size(), 1 << 20))) {
      message.set_data(std::string(bytes.substr(0, 1 << 20)));
      if (!upload.writer->Write(message)) return;
    }
  }
  static grpc::Status finish(Upload& upload) {
    upload.writer->WritesDone();
    return upload.writer->Finish();
  }
  // The whole rest in one go.
  grpc::Status import(const std::string& id, std::string_view bytes, const v1::KeptImport& from = {}) {
    const auto upload = open(id, from);
    send(*upload, bytes);
    return finish(*upload);
  }
  v1::KeptImport kept() {
    grpc::ClientContext context;
    v1::KeptImportRequest request;
    request.set_stream(stream_);
    v1::KeptImport reply;
    const grpc::Status status = stub_->GetKeptImport(&context, request, &reply);
    EXPECT_TRUE(status.ok() || status.error_code() == StatusCode::NOT_FOUND) << status.error_message();
    return reply;
  }
  grpc::Status forget() {
    grpc::ClientContext context;
    v1::KeptImportRequest request;
    request.set_stream(stream_);
    v1::ForgetKeptImportReply reply;
    return stub_->ForgetKeptImport(&context, request, &reply);
  }
  // Goes on with what is kept, to the end; then nothing is kept any more.
  void go_on(const std::string& archive) {
    const v1::KeptImport from = kept();
    ASSERT_GT(from.bytes(), 0u);
    ASSERT_LE(from.bytes(), archive.size());
    EXPECT_EQ(from.checksum(), snapshot::checksum(std::as_bytes(std::span(archive).first(from.bytes()))));
    const std::string id = new_id();
    grpc::Status status;
    // A sender that has gone is told so before the agent has done with it.
    EXPECT_TRUE(eventually([&] {
      status = import(id, std::string_view(archive).substr(from.bytes()), from);
      return status.error_code() != StatusCode::ABORTED;
    }));
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(has_snapshot(id));
    EXPECT_TRUE(forget().ok());
    EXPECT_EQ(kept().bytes(), 0u);
    EXPECT_TRUE(std::filesystem::is_empty(state() / "store/imports"));
  }

  const std::string stream_ = new_id();
};

TEST_F(AgentImportTest, TheSenderGoesAndAnotherOneGoesOn) {
  start_agent();
  const std::string& archive = small_archive();
  const std::string id = new_id();
  auto upload = open(id);
  send(*upload, std::string_view(archive).substr(0, archive.size() / 2));
  ASSERT_TRUE(eventually([&] { return arrived() == archive.size() / 2; }));
  upload->context.TryCancel();
  EXPECT_EQ(finish(*upload).error_code(), StatusCode::CANCELLED);
  ASSERT_TRUE(eventually([&] { return kept().bytes() == archive.size() / 2; }));
  EXPECT_EQ(kept().name(), "warm");
  EXPECT_FALSE(has_snapshot(id));
  go_on(archive);
}

TEST_F(AgentImportTest, OfTwoAtOnceOneIsRefused) {
  start_agent();
  const std::string& archive = small_archive();
  const std::string id = new_id();
  auto upload = open(id);
  send(*upload, std::string_view(archive).substr(0, 10'000));
  ASSERT_TRUE(eventually([&] { return arrived() == 10'000; }));
  const grpc::Status second = import(new_id(), archive);
  EXPECT_EQ(second.error_code(), StatusCode::ABORTED);
  EXPECT_THAT(second.error_message(), HasSubstr("another import"));
  EXPECT_EQ(forget().error_code(), StatusCode::ABORTED);
  send(*upload, std::string_view(archive).substr(10'000));
  const grpc::Status first = finish(*upload);
  EXPECT_TRUE(first.ok()) << first.error_message();
  EXPECT_EQ(upload->reply.name(), "warm");
  EXPECT_TRUE(has_snapshot(id));
}

TEST_F(AgentImportTest, AnAgentThatWasKilledGoesOnBehindWhatWasSynced) {
  start_program();
  const std::string& archive = large_archive();
  auto upload = open(new_id());
  send(*upload, std::string_view(archive).substr(0, 40 << 20));
  ASSERT_TRUE(eventually([&] { return kept().bytes() >= 32 << 20; }));
  kill_program();
  EXPECT_EQ(finish(*upload).error_code(), StatusCode::UNAVAILABLE);
  start_agent();
  EXPECT_GE(kept().bytes(), 32u << 20);
  EXPECT_EQ(kept().name(), "warm");
  go_on(archive);
}

TEST_F(AgentImportTest, AnAgentThatStopsKeepsWhatHasCome) {
  start_agent();
  const std::string& archive = small_archive();
  auto upload = open(new_id());
  send(*upload, std::string_view(archive).substr(0, 10'000));
  ASSERT_TRUE(eventually([&] { return arrived() == 10'000; }));
  std::thread stopping([&] { agent_.reset(); });
  EXPECT_FALSE(finish(*upload).ok());
  stopping.join();
  stub_.reset();
  start_agent();
  EXPECT_EQ(kept().bytes(), 10'000u);
  go_on(archive);
}

TEST_F(AgentImportTest, AnotherArchiveIsNotMixedWithWhatIsKept) {
  start_agent();
  const std::string& archive = small_archive();
  EXPECT_EQ(import(new_id(), std::string_view(archive).substr(0, 10'000)).error_code(), StatusCode::DATA_LOSS);
  const v1::KeptImport from = kept();
  ASSERT_EQ(from.bytes(), 10'000u) << "one that ends too early may yet come whole";
  v1::KeptImport other = from;
  other.set_checksum(from.checksum() + 1);
  EXPECT_EQ(import(new_id(), archive.substr(10'000), other).error_code(), StatusCode::FAILED_PRECONDITION);
  other = from;
  other.set_bytes(9'999);
  EXPECT_EQ(import(new_id(), archive.substr(9'999), other).error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(kept().bytes(), 10'000u);
  EXPECT_EQ(import(new_id(), archive.substr(10'007), from).error_code(), StatusCode::DATA_LOSS)
      << "not what comes next";
}

TEST_F(AgentImportTest, AnArchiveSaysWhatItIsBeforeItIsSent) {
  start_agent();
  const auto describe = [&](const std::string& head, v1::ArchiveDescription& reply) {
    grpc::ClientContext context;
    v1::DescribeArchiveRequest request;
    request.set_head(head);
    return stub_->DescribeArchive(&context, request, &reply);
  };
  v1::ArchiveDescription reply;
  const grpc::Status status = describe(small_archive().substr(0, 80 << 10), reply);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.name(), "warm");
  EXPECT_EQ(describe("something else", reply).error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(describe(std::string(1000, 'x'), reply).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(describe("", reply).error_code(), StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace stasis::agent
