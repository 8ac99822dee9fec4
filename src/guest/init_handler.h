// POST /init: the host tells the daemon its token, environment, defaults and time, and after a restore, in the field
// "stasis", its new identity: {hostname?, machineId?, entropy? (base64), sandboxId?, templateId?,
// previousAccessToken?}. Everything is checked before anything is changed. With `entropy` (which marks a new machine)
// open process streams are ended: their clients belong to the machine that was frozen.
#pragma once

#include "guest/exchange.h"
#include "guest/machine_identity.h"
#include "guest/process_service.h"
#include "guest/settings.h"

namespace stasis::guest {

struct InitAnswer {
  int status = 204;  // of HTTP
  std::string message;
};

class InitHandler {
 public:
  InitHandler(Settings& settings, ProcessService& processes, MachineScope scope)
      : settings_(settings), processes_(processes), scope_(std::move(scope)) {}

  void handle(Exchange& exchange);
  // The same without HTTP; `given_token` is what the request was sent with.
  InitAnswer init(std::string_view body, const std::string& given_token);

 private:
  struct Request;
  static Result<Request> parse(std::string_view body);
  bool take_token(const Request& request, const std::string& given_token);
  Status apply(const Request& request);
  Status apply_identity(const Request& request);

  Settings& settings_;
  ProcessService& processes_;
  MachineScope scope_;
  std::mutex mutex_;  // one at a time
};

}  // namespace stasis::guest
