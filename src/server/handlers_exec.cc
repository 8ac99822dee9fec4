// Running commands in a sandbox: one answer, or a stream.
#include "base/base64.h"
#include "server/handlers.h"
#include "server/json_codec.h"

namespace stasis::server {
namespace {

constexpr size_t kMaxArguments = 4096;
constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxStdin = 3 << 20;  // it travels in one message to the agent
constexpr uint64_t kMaxExecBody = 4 << 20;

Status set_command(JsonReader& reader, pb::ExecRequest& request) {
  if (reader.is_text("command")) {
    const auto line = reader.text("command", kMaxJsonBody);
    request.set_command("/bin/bash");
    request.add_args("-lc");
    request.add_args(*line);
    return {};
  }
  const auto words = reader.text_list("command", kMaxArguments);
  reader.require("command", words && !words->empty() && !words->front().empty());
  if (!words || words->empty()) return reader.finish();
  request.set_command(words->front());
  for (size_t i = 1; i < words->size(); ++i) request.add_args((*words)[i]);
  return {};
}

Result<pb::ExecRequest> exec_request(const std::string& id, const Json& body) {
  JsonReader reader(body);
  pb::ExecRequest request;
  request.set_sandbox_id(id);
  STASIS_TRY(set_command(reader, request));
  if (const auto env = reader.text_map("env", 1024, 256 * 1024)) {
    for (const auto& [name, value] : env->items()) (*request.mutable_env())[name] = value.get<std::string>();
  }
  request.set_cwd(reader.text("cwd", kMaxPath).value_or(""));
  request.set_user(reader.text("user", 255).value_or(""));
  request.set_stdin(reader.text("stdin", kMaxStdin).value_or(""));
  request.set_timeout_ms(reader.number("timeout_ms", UINT32_MAX).value_or(0));
  STASIS_TRY(reader.finish());
  return request;
}

// An agent that does not have a sandbox that is running here: the reconciler finds out what became of it.
Error exec_error(Services& services, const std::string& id, Error error) {
  if (error.code == Code::kNotFound || error.code == Code::kUnavailable) services.wake_reconciler();
  return std::move(error).with_context("exec in sandbox " + id);
}

struct Output {
  std::string standard_output;
  std::string standard_error;
  pb::Exited exited;
  bool ended = false;
  bool too_long = false;

  bool take(const pb::ExecEvent& event) {
    if (event.has_stdout()) standard_output += event.stdout();
    if (event.has_stderr()) standard_error += event.stderr();
    if (event.has_exited()) {
      exited = event.exited();
      ended = true;
    }
    too_long = standard_output.size() + standard_error.size() > kMaxInlineBytes;
    return !too_long;
  }
};

Json output_json(const Output& output) {
  const bool text = is_utf8(output.standard_output) && is_utf8(output.standard_error);
  const auto coded = [&](const std::string& bytes) { return text ? bytes : base64_encode(bytes); };
  return {{"exit_code", output.exited.exit_code()},
          {"status", output.exited.status()},
          {"stdout", coded(output.standard_output)},
          {"stderr", coded(output.standard_error)},
          {"encoding", text ? "utf-8" : "base64"}};
}

Result<HttpResponse> exec(Services& services, Exchange& exchange, const std::string& id) {
  STASIS_ASSIGN(const Json body, read_json(exchange, kMaxExecBody));
  STASIS_ASSIGN(const pb::ExecRequest request, exec_request(id, body));
  STASIS_TRY(services.operations.running(id));
  Output output;
  Cancellation cancellation;
  Status done;
  exchange.while_connected(
      [&] {
        done =
            services.agent.exec(request, cancellation, [&](const pb::ExecEvent& event) { return output.take(event); });
      },
      [&] { cancellation.cancel(); });
  if (output.too_long) {
    return fail(Code::kResourceExhausted,
                "the command's output is longer than " + std::to_string(kMaxInlineBytes >> 20) + " MiB: it was ended",
                "stream it (GET .../exec/stream), or write it to a file");
  }
  if (!done) return fail(exec_error(services, id, std::move(done).error()));
  if (!output.ended) return fail(Code::kUnavailable, "exec in sandbox " + id + ": the command's end was not told");
  return json_response(200, output_json(output));
}

std::string event_text(const pb::ExecEvent& event) {
  Json message;
  if (event.has_started_pid()) {
    message = {{"type", "started"}, {"pid", event.started_pid()}};
  } else if (event.has_stdout()) {
    message = {{"type", "stdout"}, {"data", base64_encode(event.stdout())}};
  } else if (event.has_stderr()) {
    message = {{"type", "stderr"}, {"data", base64_encode(event.stderr())}};
  } else {
    message = {{"type", "exited"}, {"exit_code", event.exited().exit_code()}, {"status", event.exited().status()}};
  }
  return message.dump();
}

std::string error_text(const Error& error) {
  Json message = Json::parse(error_response(error).body);
  message["type"] = "error";
  return message.dump();
}

void stream_command(Services& services, Exchange& exchange, const pb::ExecRequest& request) {
  Cancellation cancellation;
  const auto producer = [&](WebSocketSender& sender) {
    bool ended = false;
    Status done = services.agent.exec(request, cancellation, [&](const pb::ExecEvent& event) {
      ended = ended || event.has_exited();
      return sender.send(event_text(event));
    });
    if (done && !ended) done = fail(Code::kUnavailable, "the command's end was not told");
    if (!done) sender.send(error_text(exec_error(services, request.sandbox_id(), std::move(done).error())));
  };
  exchange.run_websocket(producer, [&] { cancellation.cancel(); });
}

void stream_error(Exchange& exchange, const Error& error) {
  exchange.run_websocket([&](WebSocketSender& sender) { sender.send(error_text(error)); }, [] {});
}

// Told before the upgrade where it can be: a plain HTTP error is easier to read.
Result<HttpResponse> exec_stream(Services& services, Exchange& exchange, const std::string& id) {
  if (!exchange.request().upgrade) {
    return fail(Code::kInvalidArgument, "this path is a WebSocket",
                "connect with a WebSocket client, or POST .../exec");
  }
  STASIS_TRY(services.operations.running(id));
  HttpResponse response{101};
  response.sent = true;
  const Result<std::string> first = exchange.accept_websocket(kMaxExecBody);
  if (!first) return response;  // the client has gone
  const auto body = parse_object(*first);
  const auto request = body ? exec_request(id, *body) : Result<pb::ExecRequest>(fail(body.error()));
  if (request) {
    stream_command(services, exchange, *request);
  } else {
    stream_error(exchange, request.error());
  }
  return response;
}

}  // namespace

void add_exec_routes(Router& router, Services& services) {
  router.add("POST", "/v1/sandboxes/{id}/exec", [&services](Exchange& exchange, const PathParameters& path) {
    return exec(services, exchange, path.at("id"));
  });
  router.add("GET", "/v1/sandboxes/{id}/exec/stream", [&services](Exchange& exchange, const PathParameters& path) {
    return exec_stream(services, exchange, path.at("id"));
  });
}

}  // namespace stasis::server
