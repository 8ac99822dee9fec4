// The calls about what is inside a sandbox: commands and files.
#include <chrono>
#include <optional>

#include "server/testing/scripted_service.h"

namespace stasis::server::testing {
namespace {

using grpc::Status;

constexpr size_t kChunk = size_t{64} * 1024;

}  // namespace

// "echo" prints its arguments and standard input, "flood" prints without end, "wait" prints nothing without end,
// "raw" prints what is not UTF-8; the end is an exit status of as many as there are arguments.
Status ScriptedService::Exec(Context* context, const pb::ExecRequest* request,
                             grpc::ServerWriter<pb::ExecEvent>* writer) {
  Status allowed = run("Exec", *context, [&]() -> Status {
    return sandboxes_.contains(request->sandbox_id()) ? Status::OK : failed(grpc::NOT_FOUND, "no such sandbox");
  });
  if (!allowed.ok()) return allowed;
  pb::ExecEvent event;
  event.set_started_pid(7);
  writer->Write(event);
  if (request->command() == "wait") wait_for_cancel(*context);
  if (request->command() == "flood") {
    event.set_stdout(std::string(size_t{256} * 1024, 'x'));
    while (writer->Write(event)) {
    }
  }
  std::string text = request->stdin();
  for (const std::string& word : request->args()) text += word + "\n";
  if (request->command() == "raw") text = "\xff\xfe";
  event.set_stdout(text);
  writer->Write(event);
  event.set_stderr("to standard error");
  writer->Write(event);
  event.mutable_exited()->set_exit_code(request->args_size());
  event.mutable_exited()->set_status("exited");
  writer->Write(event);
  return context->IsCancelled() ? Status::CANCELLED : Status::OK;
}

void ScriptedService::wait_for_cancel(Context& context) {
  while (!context.IsCancelled()) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(10), [&] { return stopping_; });
    if (stopping_) return;
  }
}

Status ScriptedService::ReadFile(Context* context, const pb::ReadFileRequest* request,
                                 grpc::ServerWriter<pb::FileChunk>* writer) {
  std::optional<std::string> content;
  Status allowed = run("ReadFile", *context, [&]() -> Status {
    const auto sandbox = sandboxes_.find(request->sandbox_id());
    if (sandbox == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no such sandbox");
    const auto file = sandbox->second.files.find(request->path());
    if (file == sandbox->second.files.end()) return failed(grpc::NOT_FOUND, "no file " + request->path());
    content = file->second;
    return Status::OK;
  });
  if (!allowed.ok()) return allowed;
  for (size_t offset = 0; offset < content->size(); offset += kChunk) {
    pb::FileChunk chunk;
    chunk.set_data(content->substr(offset, kChunk));
    if (offset == 0) chunk.set_size(content->size());
    if (!writer->Write(chunk)) return Status::CANCELLED;
    if (request->path() == "/breaks") return failed(grpc::DATA_LOSS, "the file broke in the middle");
  }
  return Status::OK;
}

Status ScriptedService::WriteFile(Context* context, grpc::ServerReader<pb::WriteFileRequest>* reader,
                                  pb::WriteFileReply* reply) {
  pb::WriteFileRequest part;
  if (!reader->Read(&part) || !part.has_open()) return failed(grpc::INVALID_ARGUMENT, "no open");
  const pb::WriteFileRequest::Open open = part.open();
  if (open.path() == "/full") return failed(grpc::RESOURCE_EXHAUSTED, "no space left on device");
  std::string content;
  while (reader->Read(&part)) content += part.data();
  if (context->IsCancelled()) return Status::CANCELLED;
  return run("WriteFile", *context, [&]() -> Status {
    const auto sandbox = sandboxes_.find(open.sandbox_id());
    if (sandbox == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no such sandbox");
    reply->set_bytes(content.size());
    sandbox->second.files[open.path()] = std::move(content);
    return Status::OK;
  });
}

Status ScriptedService::ListDir(Context* context, const pb::PathRequest* request, pb::ListDirReply* reply) {
  return run("ListDir", *context, [&]() -> Status {
    const auto sandbox = sandboxes_.find(request->sandbox_id());
    if (sandbox == sandboxes_.end()) return failed(grpc::NOT_FOUND, "no such sandbox");
    for (const auto& [path, content] : sandbox->second.files) {
      if (!path.starts_with(request->path())) continue;
      pb::DirEntry* entry = reply->add_entries();
      entry->set_name(path.substr(path.rfind('/') + 1));
      entry->set_path(path);
      entry->set_type("file");
      entry->set_size(content.size());
      entry->set_mode(0644);
      entry->set_owner("root");
      entry->set_group("root");
      entry->set_modified("2026-01-01T00:00:00Z");
    }
    return Status::OK;
  });
}

Status ScriptedService::MakeDir(Context* context, const pb::PathRequest* request, pb::PathReply*) {
  return run("MakeDir", *context, [&]() -> Status {
    return sandboxes_.contains(request->sandbox_id()) ? Status::OK : failed(grpc::NOT_FOUND, "no such sandbox");
  });
}

Status ScriptedService::RemovePath(Context* context, const pb::PathRequest* request, pb::PathReply*) {
  return run("RemovePath", *context, [&]() -> Status {
    const auto sandbox = sandboxes_.find(request->sandbox_id());
    if (sandbox == sandboxes_.end() || sandbox->second.files.erase(request->path()) == 0) {
      return failed(grpc::NOT_FOUND, "no file " + request->path());
    }
    return Status::OK;
  });
}

}  // namespace stasis::server::testing
