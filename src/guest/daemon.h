// The daemon: routes each request to its handler after checking the access token.
#pragma once

#include "guest/files_handler.h"
#include "guest/filesystem_service.h"
#include "guest/init_handler.h"
#include "guest/metrics.h"
#include "guest/process_service.h"
#include "guest/process_table.h"
#include "guest/settings.h"

namespace stasis::guest {

class Daemon {
 public:
  Daemon(ProcessTable& table, MachineScope scope)
      : processes_(table, settings_),
        filesystem_(settings_),
        files_(settings_),
        init_(settings_, processes_, std::move(scope)) {}

  void handle(Exchange& exchange);
  // POST /init, come by other means than HTTP.
  InitAnswer init(std::string_view body) { return init_.init(body, ""); }

 private:
  void rpc(Exchange& exchange);
  void unary(Exchange& exchange, bool process_service, std::string_view method);

  Settings settings_;
  ProcessService processes_;
  FilesystemService filesystem_;
  FilesHandler files_;
  InitHandler init_;
  Metrics metrics_;
};

}  // namespace stasis::guest
