// CUDA kernels that visit boxes of pixels, one box per item (a face, or one channel of a face), from a single pixel to the whole image.
//
// One thread takes a small box, its warp a medium one. A large box is cut into pieces, which go to a list that a second kernel works off
// with the whole grid: one huge triangle costs no more than its pixels. Should the list be full, the warp visits the pieces itself.
//
// A visit may add up `kSums` numbers per item. The order of the additions depends on the box alone and never on who makes them, so the
// sums have the same bits on every run, whether or not the pieces found room in the list.
#pragma once

#include "common/face_scratch.h"
#include "common/launch.h"

namespace focus {

struct Piece {
    int64_t item;  // -1: none
    int64_t number;
};

// Scratch of one call, which clears it in an earlier kernel.
struct PieceList {
    unsigned long long* counter;  // pieces asked for, beyond the capacity too
    Piece* pieces;                // [kPieceCapacity]
    double* sums;                 // [kPieceCapacity, kSums]; unused without sums
    int64_t piece_pixels;         // of each piece but the last of a box

    PieceList(TensorView<int64_t, 1> const& memory, TensorView<double, 2> const& piece_sums, int64_t image_pixels)
        : counter(reinterpret_cast<unsigned long long*>(memory.data)),
          pieces(reinterpret_cast<Piece*>(memory.data + 1)),
          sums(piece_sums.data),
          piece_pixels((image_pixels + kMostPieces - 1) / kMostPieces) {
        if (piece_pixels < kPiecePixels) piece_pixels = kPiecePixels;
    }

    FOCUS_HD void clear() const { *counter = 0; }
    FOCUS_HD int64_t count() const { return *counter < kPieceCapacity ? static_cast<int64_t>(*counter) : kPieceCapacity; }
    FOCUS_HD int64_t count(PixelBox const& box) const { return (box.count() + piece_pixels - 1) / piece_pixels; }
};

// A `Work` is a struct of kernel parameters with
//     static constexpr int kSums;                                        how many numbers a visit adds up; may be 0
//     struct State { PixelBox box; ... };                                what is worked out once per item
//     bool prepare(int64_t item, State*) const;                          false: the item has no pixels
//     void visit(State const&, int x, int y, double* sums) const;        one pixel; adds to its sums
//     void store(int64_t item, int k, double sum) const;                 the k-th sum over all pixels; only with kSums > 0
// `Items` says which of them are visited: count() on the card, most, which is no less, on the host, and at(i) for i < count().

struct AllItems {
    int64_t most;

    __device__ int64_t count() const { return most; }
    __device__ int64_t at(int64_t i) const { return i; }
};

namespace pixel_boxes {

// Their kernels take many registers: of smaller blocks more fit side by side.
constexpr int kItemsBlockSize = kBlockSize < 128 ? kBlockSize : 128;

template <typename Work>
constexpr int kSumSize = Work::kSums > 0 ? Work::kSums : 1;

// Pixels begin, begin + step, ... below `end` of the box, counted row by row.
template <typename Work>
__device__ inline void visit_range(Work const& work, typename Work::State const& state, int64_t begin, int64_t end, int step,
                                   double* sums) {
    int const width = state.box.x_max - state.box.x_min + 1;
    int const row = static_cast<int>(quotient(begin, width));
    int x = static_cast<int>(begin - int64_t(row) * width), y = state.box.y_min + row;
    int const row_step = step / width, column_step = step - row_step * width;
#pragma unroll 2  // at the compiler's own 4 the registers run out
    for (int64_t pixel = begin; pixel < end; pixel += step) {
        work.visit(state, state.box.x_min + x, y, sums);
        x += column_step;
        y += row_step;
        if (x >= width) {
            x -= width;
            ++y;
        }
    }
}

// Lane k ends with the sum over the warp of sums[k].
template <int Count>
__device__ inline double add_over_warp(double (&sums)[Count], int lane) {
    double own = 0.0;
#pragma unroll
    for (int k = 0; k < Count; ++k) {
        for (int step = kWarpSize / 2; step > 0; step /= 2) sums[k] += __shfl_xor_sync(kWholeWarp, sums[k], step);
        own = lane == k ? sums[k] : own;
    }
    return own;
}

// Lane k ends with the k-th sum over the piece.
template <typename Work>
__device__ inline double visit_piece(Work const& work, typename Work::State const& state, int64_t number, int64_t piece_pixels, int lane) {
    int64_t const begin = number * piece_pixels, pixels = state.box.count();
    double sums[kSumSize<Work>] = {};
    visit_range(work, state, begin + lane, pixels - begin < piece_pixels ? pixels : begin + piece_pixels, kWarpSize, sums);
    if constexpr (Work::kSums == 0) return 0.0;
    return add_over_warp(sums, lane);
}

// Puts the pieces of an item on the list for visit_pieces_kernel; false where they do not all fit. Called by whole warps.
__device__ inline bool enlist(PieceList const& list, int64_t item, int64_t pieces, int lane) {
    unsigned long long first = 0;
    if (lane == 0) first = atomicAdd(list.counter, static_cast<unsigned long long>(pieces));
    first = __shfl_sync(kWholeWarp, first, 0);
    bool const fits = first + pieces <= kPieceCapacity;
    for (unsigned long long i = lane; i < static_cast<unsigned long long>(pieces) && first + i < kPieceCapacity; i += kWarpSize) {
        list.pieces[first + i] = fits ? Piece{item, static_cast<int64_t>(i)} : Piece{-1, 0};
    }
    return fits;
}

template <typename Work>
__device__ inline void store(Work const& work, int64_t item, int k, double sum) {
    if constexpr (Work::kSums > 0) {
        if (k < Work::kSums) work.store(item, k, sum);
    }
}

// A warp takes 32 items at a time. Small boxes first, each by its lane; then the others, one after another, by all lanes.
template <typename Work, typename Items>
__global__ void __launch_bounds__(kItemsBlockSize) visit_items_kernel(Work work, Items items, PieceList list) {
    int const lane = threadIdx.x % kWarpSize;
    int64_t const step = static_cast<int64_t>(gridDim.x) * blockDim.x, count = items.count();
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x - lane; first < count; first += step) {
        typename Work::State state;
        int64_t const own = first + lane < count ? items.at(first + lane) : -1;
        int64_t const pixels = own >= 0 && work.prepare(own, &state) ? state.box.count() : 0;
        if (pixels > 0 && pixels <= kThreadPixels) {
            double sums[kSumSize<Work>] = {};
            visit_range(work, state, 0, pixels, 1, sums);
            for (int k = 0; k < Work::kSums; ++k) store(work, own, k, sums[k]);
        }
        for (unsigned int larger = __ballot_sync(kWholeWarp, pixels > kThreadPixels); larger; larger &= larger - 1) {
            int64_t const item = __shfl_sync(kWholeWarp, own, __ffs(larger) - 1);
            work.prepare(item, &state);
            int64_t const pieces = list.count(state.box);
            if (pieces > 1 && enlist(list, item, pieces, lane)) continue;
            double sum = 0.0;
            for (int64_t number = 0; number < pieces; ++number) sum += visit_piece(work, state, number, list.piece_pixels, lane);
            store(work, item, lane, sum);
        }
    }
}

// One warp per piece of the list.
template <typename Work>
__global__ void __launch_bounds__(kBlockSize) visit_pieces_kernel(Work work, PieceList list) {
    int const lane = threadIdx.x % kWarpSize;
    FOCUS_WARP_STRIDE_LOOP(i, list.count()) {
        Piece const piece = list.pieces[i];
        if (piece.item < 0) continue;
        typename Work::State state;
        work.prepare(piece.item, &state);
        double const sum = visit_piece(work, state, piece.number, list.piece_pixels, lane);
        if (lane < Work::kSums) list.sums[i * Work::kSums + lane] = sum;
    }
}

// One warp per item of the list adds its pieces, in the order in which visit_items_kernel would have.
template <typename Work>
__global__ void __launch_bounds__(kBlockSize) add_pieces_kernel(Work work, PieceList list) {
    int const lane = threadIdx.x % kWarpSize;
    FOCUS_WARP_STRIDE_LOOP(i, list.count()) {
        Piece const piece = list.pieces[i];
        if (piece.item < 0 || piece.number > 0 || lane >= Work::kSums) continue;
        typename Work::State state;
        work.prepare(piece.item, &state);
        int64_t const pieces = list.count(state.box);
        double sum = 0.0;
        for (int64_t number = 0; number < pieces; ++number) sum += list.sums[(i + number) * Work::kSums + lane];
        store(work, piece.item, lane, sum);
    }
}

}  // namespace pixel_boxes

// Visits all boxes. The list must be clear.
template <typename Work, typename Items>
void visit_boxes(char const* name, Work const& work, Items const& items, PieceList const& list, Stream stream) {
    launch(name, pixel_boxes::visit_items_kernel<Work, Items>, grid_size(items.most, pixel_boxes::kItemsBlockSize),
           pixel_boxes::kItemsBlockSize, stream, work, items, list);
    if (items.most == 0) return;
    // The list is empty for the meshes of faces: no more blocks than there is room for at once.
    unsigned int const most = grid_size(kPieceCapacity, kBlockSize / kWarpSize), fitting = 2 * multiprocessor_count();
    unsigned int const blocks = most < fitting ? most : fitting;
    launch(name, pixel_boxes::visit_pieces_kernel<Work>, blocks, kBlockSize, stream, work, list);
    if constexpr (Work::kSums > 0) launch(name, pixel_boxes::add_pieces_kernel<Work>, blocks, kBlockSize, stream, work, list);
}

}  // namespace focus
