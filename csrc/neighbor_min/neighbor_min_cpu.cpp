#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "common/parallel.h"
#include "common/sum.h"
#include "neighbor_min/neighbor_min_math.h"

namespace focus {

namespace {

// Images are worked on in bands of whole rows of tiles, one band a task; the result does not depend on the bands. A band looks window / 2
// rows beyond its own, so bands are only as many as keep the threads busy.
struct Bands {
    Bands(int64_t batch, int64_t image_height, int threads)
        : height(image_height), tile_rows((height + kNeighborTileHeight - 1) / kNeighborTileHeight) {
        constexpr int64_t kTasksPerThread = 4;
        int64_t const wanted = threads == 1 ? 1 : (kTasksPerThread * threads + batch - 1) / std::max<int64_t>(batch, 1);
        per_image = std::max<int64_t>(1, std::min(wanted, tile_rows));
        count = batch * per_image;
    }
    int64_t image(int64_t task) const { return task / per_image; }
    int64_t begin(int64_t task) const { return limit(task % per_image); }
    int64_t end(int64_t task) const { return limit(task % per_image + 1); }
    int64_t limit(int64_t band) const { return std::min(height, tile_rows * band / per_image * kNeighborTileHeight); }

    int64_t height, tile_rows, per_image, count;
};

// One row of `planes` times the mask, into [C, W].
template <typename T>
void mask_row(MaskedPair<T> const& image, T const* planes, int64_t y, T* __restrict out) {
    for (int64_t c = 0; c < image.channels; ++c) {
        T const* const row = planes + c * image.area + y * image.width;
        if (!image.mask) {
            std::copy_n(row, image.width, out + c * image.width);
            continue;
        }
        T const* const mask = image.mask + y * image.width;
        for (int64_t x = 0; x < image.width; ++x) out[c * image.width + x] = mask[x] * row[x];
    }
}

// An integer as wide as T, so that a comparison of T selects it without conversion in vector code.
template <typename T>
using IndexOf = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

// Candidates x + dx of one row for the pixels x in [begin, end) of another. Channels is 3, or 0 for `channels` known at run time.
template <int Channels, typename T>
void visit(T const* own, T const* there, int64_t channels, int64_t width, int64_t begin, int64_t end, int64_t dx, IndexOf<T> code,
           T* __restrict nearest, IndexOf<T>* __restrict index) {
    int64_t const count = Channels ? Channels : channels;
    for (int64_t x = begin; x < end; ++x) {
        T squared = T(0);
#pragma GCC unroll 3
        for (int64_t c = 0; c < count; ++c) {
            T const difference = own[c * width + x] - there[c * width + x + dx];
            squared += difference * difference;
        }
        bool const better = replaces(squared, nearest[x]);
        nearest[x] = better ? squared : nearest[x];
        index[x] = better ? code : index[x];
    }
}

// Adds one row of distances to the sums of the tiles that it crosses.
template <typename T>
void add_to_tiles(NeighborMinParameters<T> const& p, T const* distances, int64_t b, int64_t y) {
    int64_t const width = p.argmin.size[2], tiles = p.partial_sums.size[2];
    double* const sums = p.partial_sums.data + (b * p.partial_sums.size[1] + y / kNeighborTileHeight) * tiles;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        int64_t const begin = tile * kNeighborTileWidth;
        sums[tile] = (y % kNeighborTileHeight ? sums[tile] : 0.0) +
                     lane_sum(distances + begin, std::min<int64_t>(kNeighborTileWidth, width - begin));
    }
}

template <typename T>
void forward_band(NeighborMinParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end) {
    MaskedPair<T> const image(p, b);
    int64_t const window = p.window, radius = window / 2, width = image.width, row_size = image.channels * width;
    auto const visit_row = image.channels == 3 ? visit<3, T> : visit<0, T>;
    std::vector<T> ring(window * row_size), own(row_size), nearest(width);  // ring: masked rows of the reconstruction, row y at y % window
    std::vector<IndexOf<T>> index(width);
    int64_t loaded = std::max<int64_t>(0, row_begin - radius);
    for (int64_t y = row_begin; y < row_end; ++y) {
        int64_t const first = std::max<int64_t>(0, y - radius), last = std::min(image.height - 1, y + radius);
        for (; loaded <= last; ++loaded) mask_row(image, image.reconstruction, loaded, ring.data() + loaded % window * row_size);
        mask_row(image, image.target, y, own.data());
        std::fill(nearest.begin(), nearest.end(), std::numeric_limits<T>::infinity());
        std::fill(index.begin(), index.end(), IndexOf<T>(window * window / 2));  // the pixel itself, where every distance is infinite
        for (int64_t there = first; there <= last; ++there) {
            for (int64_t dx = -radius; dx <= radius; ++dx) {
                visit_row(own.data(), ring.data() + there % window * row_size, image.channels, width, std::max<int64_t>(0, -dx),
                          std::min(width, width - dx), dx, IndexOf<T>((there - y + radius) * window + dx + radius), nearest.data(),
                          index.data());
            }
        }
        int64_t const pixel = b * image.area + y * width;
        for (int64_t x = 0; x < width; ++x) p.argmin.data[pixel + x] = static_cast<uint8_t>(index[x]);
        if (p.power == 1) {
            for (int64_t x = 0; x < width; ++x) nearest[x] = std::sqrt(nearest[x]);
        }
        if (p.distance) std::copy_n(nearest.data(), width, p.distance.data + pixel);
        if (p.loss) add_to_tiles(p, nearest.data(), b, y);
    }
}

// Where the forces from one row that have this argmin end.
struct Destination {
    int64_t pixel;  // in the image, of the first pixel of the row
    int64_t sums;   // of the same pixel in the ring of sums, -1 outside the band
    int64_t dx;
};

template <int Channels, typename T>
void backward_band(NeighborMinBackwardParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end) {
    MaskedPair<T> const image(p, b);
    int64_t const channels = Channels ? Channels : image.channels, height = image.height, width = image.width, area = image.area;
    int64_t const window = p.window, radius = window / 2, row_size = channels * width;
    // What pulls at the pixels of this band may start from rows outside it; without such gradients those rows need not be looked at.
    bool const pulled = p.grad_reconstruction || p.grad_mask;
    int64_t const halo = pulled ? radius : 0;
    T const loss_grad = p.grad_loss ? loss_gradient(p) : T(0);

    std::vector<T> own(row_size), there(row_size), force(row_size), mask(width, T(1)), grad(width, loss_grad);
    std::vector<T> ring(window * row_size, T(0));  // sums of forces at the row y % window of targets
    std::vector<int64_t> end_of_force(width);      // in the ring, -1 outside the band
    std::vector<Destination> destinations(window * window);
    for (int64_t y = row_begin - halo; y < row_end + halo; ++y) {
        int64_t const row = y * width;
        if (y >= 0 && y < height) {
            if (image.mask) std::copy_n(image.mask + row, width, mask.data());
            if (p.grad_distance) std::copy_n(p.grad_distance.data + b * area + row, width, grad.data());
            mask_row(image, image.target, y, own.data());
            for (int64_t i = 0; i < window * window; ++i) {
                Offset const offset = offset_of(int(i), p.window);
                int64_t const there_y = clamped(y + offset.y, height);
                bool const in_band = there_y >= row_begin && there_y < row_end;
                destinations[i] = {there_y * width, in_band ? there_y % window * row_size : -1, offset.x};
            }
            for (int64_t x = 0; x < width; ++x) {
                Destination const& to = destinations[std::min<int64_t>(p.argmin.data[b * area + row + x], window * window - 1)];
                int64_t const there_x = clamped(x + to.dx, width), pixel = to.pixel + there_x;
                T const mask_there = image.mask_at(pixel);
                for (int64_t c = 0; c < channels; ++c) there[c * width + x] = mask_there * image.reconstruction[c * area + pixel];
                end_of_force[x] = to.sums < 0 ? -1 : to.sums + there_x;
            }
            for (int64_t x = 0; x < width; ++x) {
                T squared = T(0);
#pragma GCC unroll 3
                for (int64_t c = 0; c < channels; ++c) {
                    T const difference = own[c * width + x] - there[c * width + x];
                    squared += difference * difference;
                }
                T const weight = pull(squared, grad[x], p.power);
#pragma GCC unroll 3
                for (int64_t c = 0; c < channels; ++c) force[c * width + x] = weight * (own[c * width + x] - there[c * width + x]);
            }
            bool const inside = y >= row_begin && y < row_end;
            if (inside && p.grad_target) {
                for (int64_t c = 0; c < channels; ++c) {
                    T* const out = p.grad_target.data + (b * channels + c) * area + row;
                    for (int64_t x = 0; x < width; ++x) out[x] = mask[x] * force[c * width + x];
                }
            }
            if (inside && p.grad_mask) {
                T* const out = p.grad_mask.data + b * area + row;
                for (int64_t c = 0; c < channels; ++c) {
                    T const* const target = image.target + c * area + row;
                    for (int64_t x = 0; x < width; ++x) out[x] = (c ? out[x] : T(0)) + target[x] * force[c * width + x];
                }
            }
            for (int64_t x = 0; pulled && x < width; ++x) {
                if (end_of_force[x] < 0) continue;
                for (int64_t c = 0; c < channels; ++c) ring[end_of_force[x] + c * width] += force[c * width + x];
            }
        }
        int64_t const done = y - halo;  // the last row of pixels that could pull at this one was y
        if (!pulled || done < row_begin) continue;
        T* const sums = ring.data() + done % window * row_size;
        for (int64_t c = 0; c < channels; ++c) {
            int64_t const first = c * area + done * width;
            for (int64_t x = 0; p.grad_reconstruction && x < width; ++x) {
                p.grad_reconstruction.data[b * channels * area + first + x] = -image.mask_at(done * width + x) * sums[c * width + x];
            }
            for (int64_t x = 0; p.grad_mask && x < width; ++x) {
                p.grad_mask.data[b * area + done * width + x] -= image.reconstruction[first + x] * sums[c * width + x];
            }
        }
        std::fill_n(sums, row_size, T(0));
    }
}

}  // namespace

template <typename T>
void neighbor_min_cpu(NeighborMinParameters<T> const& p, int threads) {
    Bands const bands(p.argmin.size[0], p.argmin.size[1], threads);
    parallel_for(bands.count, threads, [&](int64_t task) { forward_band(p, bands.image(task), bands.begin(task), bands.end(task)); });
    if (!p.loss) return;
    double const total = ordered_sum(p.partial_sums.data, p.partial_sums.count());
    p.loss.data[0] = static_cast<T>(p.mean ? total / std::max<int64_t>(p.argmin.count(), 1) : total);
}

template <typename T>
void neighbor_min_backward_cpu(NeighborMinBackwardParameters<T> const& p, int threads) {
    Bands const bands(p.argmin.size[0], p.argmin.size[1], threads);
    auto const backward = p.target.size[1] == 3 ? backward_band<3, T> : backward_band<0, T>;
    parallel_for(bands.count, threads, [&](int64_t task) { backward(p, bands.image(task), bands.begin(task), bands.end(task)); });
}

template void neighbor_min_cpu(NeighborMinParameters<float> const&, int);
template void neighbor_min_cpu(NeighborMinParameters<double> const&, int);
template void neighbor_min_backward_cpu(NeighborMinBackwardParameters<float> const&, int);
template void neighbor_min_backward_cpu(NeighborMinBackwardParameters<double> const&, int);

}  // namespace focus
