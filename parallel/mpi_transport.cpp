// SPDX-License-Identifier: MIT
#include "parallel/mpi_transport.h"

#include <algorithm>
#include <array>

#include "core/base/check.h"
#include "parallel/progress.h"

namespace glm {
namespace {

constexpr int64_t kLargestPiece = int64_t{1} << 30;

}  // namespace

void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(result, text.data(), &length) != MPI_SUCCESS) length = 0;
  fail(ExitCode::kCommunication,
       "{} failed: {}",
       call,
       escaped(std::string_view(text.data(), static_cast<size_t>(length))));
}

MpiTransport::MpiTransport(MPI_Comm comm, const NodeBoard& board, bool crowded)
    : comm_(comm), board_(board), crowded_(crowded) {
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  int* bound = nullptr;
  int found = 0;
  check_mpi(MPI_Comm_get_attr(comm_, MPI_TAG_UB, &bound, &found), "MPI_Comm_get_attr");
  if (found != 0) largest_tag_ = *bound;
}

std::string MpiTransport::rank_text(int rank) const {
  if (hosts_.empty()) return fmt::format("rank {}", rank);
  return fmt::format("rank {} (host {})", rank, hosts_[static_cast<size_t>(rank)]);
}

void MpiTransport::note(const char* verb, const StepContext* context) {
  note_.verb = verb;
  note_.phase = context == nullptr ? nullptr : context->phase;
  if (context == nullptr) return;
  note_.part = context->part;
  note_.step = context->step;
  note_.layer = context->layer;
}

std::string MpiTransport::noted_text() const {
  const char* verb = note_.verb;
  if (verb == nullptr) return "start";
  const char* phase = note_.phase;
  if (phase == nullptr) return verb;
  const StepContext context{phase, note_.step, note_.layer, note_.part};
  return verb + place_text(&context);
}

void MpiTransport::start(int tag, std::span<const Transfer> transfers) {
  GLM_CHECK(tag <= largest_tag_, "more than {} groups", largest_tag_);
  requests_.clear();
  pieces_.clear();
  left_.assign(transfers.size(), 0);
  for (size_t i = 0; i < transfers.size(); ++i) {
    const Transfer& transfer = transfers[i];
    for (int64_t at = 0; at < transfer.bytes; at += kLargestPiece) {
      const auto bytes = static_cast<int>(std::min(kLargestPiece, transfer.bytes - at));
      MPI_Request request = MPI_REQUEST_NULL;
      if (transfer.receive)
        check_mpi(
            MPI_Irecv(transfer.data + at, bytes, MPI_BYTE, transfer.peer, tag, comm_, &request),
            "MPI_Irecv");
      else
        check_mpi(
            MPI_Isend(transfer.data + at, bytes, MPI_BYTE, transfer.peer, tag, comm_, &request),
            "MPI_Isend");
      requests_.push_back(request);
      pieces_.push_back({i, transfer.peer, bytes, transfer.receive});
      left_[i] += 1;
    }
  }
  finished_.resize(std::max(finished_.size(), requests_.size()));
  statuses_.resize(std::max(statuses_.size(), requests_.size()));
}

void MpiTransport::check_piece(const Piece& piece, const MPI_Status& status, int result) const {
  if (result != MPI_SUCCESS) {
    int kind = MPI_SUCCESS;
    MPI_Error_class(result, &kind);
    if (kind == MPI_ERR_TRUNCATE)
      fail(ExitCode::kCommunication,
           "rank {} sent more than the {} bytes expected: the ranks disagree",
           piece.peer,
           piece.bytes);
    check_mpi(result, piece.receive ? "MPI_Irecv" : "MPI_Isend");
  }
  if (!piece.receive) return;
  int bytes = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
  if (bytes != piece.bytes)
    fail(ExitCode::kCommunication,
         "rank {} sent {} bytes, {} were expected: the ranks disagree",
         piece.peer,
         bytes,
         piece.bytes);
}

bool MpiTransport::poll(std::span<uint8_t> done) {
  board_.polled();
  int count = 0;
  const int result = MPI_Testsome(static_cast<int>(requests_.size()),
                                  requests_.data(),
                                  &count,
                                  finished_.data(),
                                  statuses_.data());
  if (result != MPI_SUCCESS && result != MPI_ERR_IN_STATUS) check_mpi(result, "MPI_Testsome");
  if (count == MPI_UNDEFINED || count == 0) return false;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const Piece& piece = pieces_[static_cast<size_t>(finished_[i])];
    check_piece(
        piece, statuses_[i], result == MPI_ERR_IN_STATUS ? statuses_[i].MPI_ERROR : MPI_SUCCESS);
    if (--left_[piece.transfer] == 0) done[piece.transfer] = 1;
  }
  return true;
}

void MpiTransport::progress() {
  for (Posted& posted : posted_) {
    if (posted.requests.empty()) continue;
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(posted.requests.size()),
                          posted.requests.data(),
                          &done,
                          MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done != 0) posted.requests.clear();
  }
}

bool MpiTransport::try_post(int tag, const Transfer& send) {
  GLM_CHECK(tag <= largest_tag_, "more than {} groups", largest_tag_);
  progress();
  Posted* free = nullptr;
  int n = 0;
  for (Posted& posted : posted_) {
    if (posted.peer != send.peer) continue;
    ++n;
    if (posted.requests.empty()) free = &posted;
  }
  if (free == nullptr) {
    if (n == kMostPosted) return false;
    free = &posted_.emplace_back();
    free->peer = send.peer;
  }
  free->bytes.assign(send.data, send.data + send.bytes);
  for (int64_t at = 0; at < send.bytes; at += kLargestPiece) {
    const auto bytes = static_cast<int>(std::min(kLargestPiece, send.bytes - at));
    check_mpi(MPI_Isend(free->bytes.data() + at,
                        bytes,
                        MPI_BYTE,
                        send.peer,
                        tag,
                        comm_,
                        &free->requests.emplace_back(MPI_REQUEST_NULL)),
              "MPI_Isend");
  }
  progress();
  return true;
}

// The ranks have agreed on the end by then, so the bytes have arrived.
MpiTransport::~MpiTransport() {
  for (Posted& posted : posted_)
    for (MPI_Request& request : posted.requests)
      if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
}

void MpiTransport::cancel() {
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (pieces_[i].receive) MPI_Cancel(&requests_[i]);
    MPI_Request_free(&requests_[i]);
  }
  requests_.clear();
}

}  // namespace glm
