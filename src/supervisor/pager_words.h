// The pager's own numbers in the words of the protocol (pager_report.h).
#pragma once

#include "pager/activity.h"
#include "pager/load_report.h"
#include "pager/mapped_plan.h"
#include "supervisor/pager_report.h"

namespace stasis::supervisor {

PagerReport report_of(const pager::ActivityStats& stats);
// A mapped memory has everything at once, and nobody sees what is touched of it.
PagerReport report_of(const pager::MappedPlan& plan);
void add_load(TraceReply& reply, const pager::LoadReport& load);
// Of a memory that is mapped in part first the one, then the other: what was mapped was there before anything came, and
// is told as far as there is room.
void add_timeline(TraceReply& reply, const pager::Timeline& timeline);
void add_timeline(TraceReply& reply, const pager::MappedPlan& plan);

}  // namespace stasis::supervisor
