#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"
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

// An integer as wide as T, so that a comparison of T selects it without conversion in vector code.
template <typename T>
using CodeOf = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

// Room for a row that is worked on in whole registers.
FOCUS_HD int64_t padded(int64_t width) { return (width + 7) / 8 * 8; }

// A row of an image with its ends repeated; of one without channels there are distances all the same.
template <typename Parameters>
int64_t row_room(Parameters const& p) {
    return std::max<int64_t>(1, p.target.size[1]) * (padded(p.target.size[3]) + p.window - 1);
}

// Calls body(c) for every channel: Channels is 3, or 0 for `channels` known at run time.
template <int Channels, typename Body>
FOCUS_HD void for_channels(int64_t channels, Body const& body) {
    if constexpr (Channels > 0) {
        unrolled<Channels>(body);
    } else {
        for (int64_t c = 0; c < channels; ++c) body(c);
    }
}

// One image, and rows of it that are kept: [C, stride], pixel x at radius + x.
template <typename T>
struct ImageRows : MaskedPair<T> {
    template <typename Parameters>
    FOCUS_HD ImageRows(Parameters const& p, int64_t b, T const* row_of_ones)
        : MaskedPair<T>(p, b), window(p.window), radius(window / 2), stride(padded(this->width) + 2 * radius), ones(row_of_ones) {}

    FOCUS_HD T const* mask_row(int64_t y) const { return this->mask ? this->mask + y * this->width : ones; }
    FOCUS_HD int64_t size() const { return this->channels * stride; }

    // Row y of `planes` times the mask. Its ends are repeated beyond it: no minimum changes by that, and a place beyond an end stands for
    // the one that it repeats. Returns whether all of it is finite.
    FOCUS_HD bool load(T const* planes, int64_t y, T* out) const {
        int64_t const width = this->width;
        T const* const mask = mask_row(y);
        CodeOf<T> odd = 0;
        for (int64_t c = 0; c < this->channels; ++c) {
            T const* const from = planes + c * this->area + y * width;
            T* const to = out + c * stride + radius;
#pragma GCC ivdep
            for (int64_t x = 0; x < width; ++x) {
                T const value = mask[x] * from[x], zero = value - value;
                to[x] = value;
                odd |= -CodeOf<T>(zero != zero);
            }
            for (int64_t x = 1; x <= radius; ++x) {
                to[-x] = to[0];
                to[width - 1 + x] = to[width - 1];
            }
        }
        return odd == 0;
    }

    // Asks for what is read next, while there is enough to compute: of one channel, these rows of the target and the reconstruction.
    FOCUS_HD void prefetch(int64_t c, int64_t target_y, int64_t reconstruction_y) const {
        auto const row = [&](T const* plane, int64_t y) FOCUS_INLINE {
            if (y >= this->height) return;
            constexpr int64_t kLine = 64 / sizeof(T);
            for (int64_t x = 0; x < this->width; x += kLine) __builtin_prefetch(plane + y * this->width + x);
        };
        if (c == 0 && this->mask) row(this->mask, reconstruction_y);
        if (c >= this->channels) return;
        row(this->target + c * this->area, target_y);
        row(this->reconstruction + c * this->area, reconstruction_y);
    }

    int64_t window, radius, stride;
    T const* ones;
};

// Compares pixels with Count neighbours each, which lie side by side in a row of the reconstruction and have the codes from `code` on.
// Finite: no colour of either row is infinite or NaN.
template <int Bytes, int Channels, int Count, bool Finite, typename T>
FOCUS_HD void visit(T const* own, T const* there, int64_t channels, int64_t stride, int64_t width, CodeOf<T> code, T* nearest,
                    CodeOf<T>* codes) {
    for (int64_t x = 0; x < width; x += Bytes / sizeof(T)) {
        Register<T, Bytes> least = load_register<Bytes>(nearest + x);
        Register<CodeOf<T>, Bytes> place = load_register<Bytes>(codes + x);
        unrolled<Count>([&](auto k) FOCUS_INLINE {
            Register<T, Bytes> squared = {};
            for_channels<Channels>(channels, [&](auto c) FOCUS_INLINE {
                auto const difference = load_register<Bytes>(own + c * stride + x) - load_register<Bytes>(there + c * stride + x + k);
                squared = Channels > 0 && c == 0 ? difference * difference : squared + difference * difference;
            });
            auto const better = Finite ? squared < least : ~(squared >= least) & (least == least);  // as `replaces`
            least = better ? squared : least;
            place = better ? Register<CodeOf<T>, Bytes>{} + (code + k) : place;
        });
        store_register<Bytes>(nearest + x, least);
        store_register<Bytes>(codes + x, place);
    }
}

// Adds one row of distances to the sums of the tiles that it crosses.
template <typename T>
FOCUS_HD void add_to_tiles(NeighborMinParameters<T> const& p, T const* distances, int64_t b, int64_t y) {
    int64_t const width = p.argmin.size[2], tiles = p.partial_sums.size[2];
    double* const sums = p.partial_sums.data + (b * p.partial_sums.size[1] + y / kNeighborTileHeight) * tiles;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        int64_t const begin = tile * kNeighborTileWidth;
        sums[tile] = (y % kNeighborTileHeight ? sums[tile] : 0.0) +
                     lane_sum(distances + begin, std::min<int64_t>(kNeighborTileWidth, width - begin));
    }
}

template <typename T>
struct ForwardScratch {
    explicit ForwardScratch(NeighborMinParameters<T> const& p)
        : row(row_room(p)), ring(p.window * row), own(row), nearest(row), ones(p.target.size[3], T(1)), codes(row) {}

    int64_t row;
    std::vector<T> ring, own, nearest, ones;  // ring: masked rows of the reconstruction, row y at y % window
    std::vector<CodeOf<T>> codes;
    bool finite[kLargestWindow];  // of the rows of the ring
};

// Together: neighbours that are visited at once, 1 or the window.
template <int Bytes, int Channels, int Together, typename T>
FOCUS_HD void forward_rows(NeighborMinParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end, ForwardScratch<T>& scratch) {
    ImageRows<T> const image(p, b, scratch.ones.data());
    int64_t const window = image.window, radius = image.radius, channels = image.channels, width = image.width, stride = image.stride;
    T *const ring = scratch.ring.data(), *const own = scratch.own.data(), *const nearest = scratch.nearest.data();
    CodeOf<T>* const codes = scratch.codes.data();
    int64_t loaded = std::max<int64_t>(0, row_begin - radius);
    for (int64_t y = row_begin; y < row_end; ++y) {
        int64_t const first = std::max<int64_t>(0, y - radius), last = std::min(image.height - 1, y + radius);
        for (; loaded <= last; ++loaded) {
            scratch.finite[loaded % window] = image.load(image.reconstruction, loaded, ring + loaded % window * image.size());
        }
        bool const own_finite = image.load(image.target, y, own);
        for (int64_t x = 0; x < width; ++x) nearest[x] = std::numeric_limits<T>::infinity();
        for (int64_t x = 0; x < width; ++x)
            codes[x] = CodeOf<T>(window * window / 2);  // the pixel itself, where every distance is infinite
        for (int64_t there_y = first; there_y <= last; ++there_y) {
            image.prefetch(there_y - first, y + 1, loaded);
            T const* const there = ring + there_y % window * image.size();
            CodeOf<T> const code = CodeOf<T>((there_y - y + radius) * window);
            for (int j = 0; j < int(window); j += Together) {
                if (own_finite && scratch.finite[there_y % window]) {
                    visit<Bytes, Channels, Together, true>(own + radius, there + j, channels, stride, width, code + j, nearest, codes);
                } else {
                    visit<Bytes, Channels, Together, false>(own + radius, there + j, channels, stride, width, code + j, nearest, codes);
                }
            }
        }
        for (int64_t x = 0; x < std::min(radius, width); ++x) {  // places to the left of the image; those to the right are never the first
            codes[x] += std::max<CodeOf<T>>(0, CodeOf<T>(radius - x) - codes[x] % CodeOf<T>(window));
        }
        int64_t const pixel = b * image.area + y * width;
        uint8_t* const argmin = p.argmin.data + pixel;
#pragma GCC ivdep
        for (int64_t x = 0; x < width; ++x) argmin[x] = static_cast<uint8_t>(codes[x]);
        if (p.power == 1) {
            for (int64_t x = 0; x < width; ++x) nearest[x] = square_root(nearest[x]);
        }
        if (p.distance) std::memcpy(p.distance.data + pixel, nearest, width * sizeof(T));
        if (p.loss) add_to_tiles(p, nearest, b, y);
    }
}

template <int Channels, int Together, typename T>
void forward_band(NeighborMinParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end) {
    ForwardScratch<T> scratch(p);
    vectorized_by_register([&](auto bytes) FOCUS_INLINE { forward_rows<bytes, Channels, Together>(p, b, row_begin, row_end, scratch); });
}

// The masked colours of the reconstruction that the codes of one row lead to, in a window of 3 x 3.
template <int Bytes, typename T>
FOCUS_HD void select_ends(T const* above, T const* beside, T const* below, CodeOf<T> const* codes, int64_t stride, int64_t width, T* ends) {
    for (int64_t x = 0; x < width; x += Bytes / sizeof(T)) {
        Register<CodeOf<T>, Bytes> const code = load_register<Bytes>(codes + x);
        Register<T, Bytes> end[3];
        unrolled<3>([&](auto c) FOCUS_INLINE { end[c] = load_register<Bytes>(above + c * stride + x); });
        unrolled<8>([&](auto k) FOCUS_INLINE {
            constexpr int kCode = k + 1;
            T const* const row = (kCode < 3 ? above : kCode < 6 ? beside : below) + x + kCode % 3;
            auto const here = code == kCode;
            unrolled<3>([&](auto c) FOCUS_INLINE { end[c] = here ? load_register<Bytes>(row + c * stride) : end[c]; });
        });
        unrolled<3>([&](auto c) FOCUS_INLINE { store_register<Bytes>(ends + c * stride + x, end[c]); });
    }
}

// The same for any window: `places` has the place in the ring that each code leads to from x = 0.
template <typename T>
FOCUS_HD void look_up_ends(T const* ring, int64_t const* places, CodeOf<T> const* codes, int64_t channels, int64_t stride, int64_t width,
                           T* ends) {
    for (int64_t x = 0; x < width; ++x) {
        T const* const end = ring + places[codes[x]] + x;
        for (int64_t c = 0; c < channels; ++c) ends[c * stride + x] = end[c * stride];
    }
}

// Makes forces of the ends, and the part of the gradient of the mask that comes from the target. One channel after the other: planes often
// lie a multiple of 4096 bytes apart, and the cache next to the processor holds few lines of such addresses.
template <typename T>
FOCUS_HD void find_forces(ImageRows<T> const& image, int64_t y, T const* grad, int power, T* weights, T* forces, T* grad_target,
                          int64_t grad_stride, T* grad_mask) {
    int64_t const width = image.width, channels = image.channels;
    T const *const mask = image.mask_row(y), *const target = image.target + y * width;
    for (int64_t x = 0; x < width; ++x) grad_mask[x] = weights[x] = T(0);
    for (int64_t c = 0; power == 1 && c < channels; ++c) {
        T const *const colors = target + c * image.area, *const ends = forces + c * image.stride;
#pragma GCC ivdep
        for (int64_t x = 0; x < width; ++x) {
            T const difference = mask[x] * colors[x] - ends[x];
            weights[x] += difference * difference;
        }
    }
#pragma GCC ivdep
    for (int64_t x = 0; x < width; ++x) weights[x] = pull(weights[x], grad[x], power);
    for (int64_t c = 0; c < channels; ++c) {
        T const* const colors = target + c * image.area;
        T *const force = forces + c * image.stride, *const out = grad_target + c * grad_stride;
#pragma GCC ivdep
        for (int64_t x = 0; x < width; ++x) {
            T const pulling = weights[x] * (mask[x] * colors[x] - force[x]);
            force[x] = pulling;
            grad_mask[x] += colors[x] * pulling;
            out[x] = mask[x] * pulling;
        }
    }
}

// Adds to the sums of one row the forces from another that end there: of Together pixels side by side, whose codes descend from `code`.
template <int Bytes, int Channels, int Together, typename T>
FOCUS_HD void add_forces(T const* force, CodeOf<T> const* codes, int64_t channels, int64_t stride, int64_t width, CodeOf<T> code, T* sums) {
    for (int64_t x = 0; x < width; x += Bytes / sizeof(T)) {
        Register<CodeOf<T>, Bytes> here[Together];
        unrolled<Together>([&](auto k) FOCUS_INLINE { here[k] = load_register<Bytes>(codes + x + k) == code - k; });
        for_channels<Channels>(channels, [&](auto c) FOCUS_INLINE {
            Register<T, Bytes> sum = load_register<Bytes>(sums + c * stride + x);
            unrolled<Together>(
                [&](auto k) FOCUS_INLINE { sum += here[k] ? load_register<Bytes>(force + c * stride + x + k) : Register<T, Bytes>{}; });
            store_register<Bytes>(sums + c * stride + x, sum);
        });
    }
}

// The gradients of row y from the sums of all forces that end there; clears the sums.
template <typename T>
FOCUS_HD void finish_row(ImageRows<T> const& image, int64_t y, T* sums, T* grad_reconstruction, int64_t grad_stride, T* grad_mask) {
    T const* const mask = image.mask_row(y);
    for (int64_t c = 0; c < image.channels; ++c) {
        T const* const colors = image.reconstruction + c * image.area + y * image.width;
        T *const sum = sums + c * image.stride, *const out = grad_reconstruction + c * grad_stride;
#pragma GCC ivdep
        for (int64_t x = 0; x < image.width; ++x) {
            out[x] = -mask[x] * sum[x];
            grad_mask[x] -= colors[x] * sum[x];
            sum[x] = T(0);
        }
    }
}

template <typename T>
struct BackwardScratch {
    explicit BackwardScratch(NeighborMinBackwardParameters<T> const& p)
        : row(row_room(p)),
          ring(p.window * row),
          sums(p.window * row),
          grad_mask(p.window * row),
          forces(row),
          weights(row),
          unused(row),
          ones(p.target.size[3], T(1)),
          grad(p.target.size[3], p.grad_loss ? loss_gradient(p) : T(0)),
          codes(row, -1),
          places(p.window * p.window) {}

    int64_t row;
    std::vector<T> ring, sums, grad_mask;  // by rows, row y at y % window: the masked reconstruction, forces that end there, gradient
    std::vector<T> forces, weights, unused, ones, grad;
    std::vector<CodeOf<T>> codes;  // -1 beyond the image
    std::vector<int64_t> places;
};

template <int Bytes, int Channels, int Together, typename T>
FOCUS_HD void backward_rows(NeighborMinBackwardParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end,
                            BackwardScratch<T>& scratch) {
    ImageRows<T> const image(p, b, scratch.ones.data());
    int64_t const window = image.window, radius = image.radius, channels = image.channels, height = image.height, width = image.width,
                  area = image.area, size = image.size();
    T *const ring = scratch.ring.data(), *const sums = scratch.sums.data(), *const forces = scratch.forces.data();
    CodeOf<T>* const codes = scratch.codes.data();
    // What pulls at the pixels of this band may start from rows outside it; without such gradients those rows need not be looked at.
    bool const pulled = p.grad_reconstruction || p.grad_mask;
    int64_t const halo = pulled ? radius : 0;
    int64_t const first = std::max<int64_t>(0, row_begin - halo);
    int64_t loaded = std::max<int64_t>(0, first - radius);
    for (int64_t y = first; y < row_end + halo; ++y) {
        if (y < height) {
            for (; loaded <= std::min(height - 1, y + radius); ++loaded) {
                image.load(image.reconstruction, loaded, ring + loaded % window * size);
            }
            int64_t const row = b * area + y * width;
            uint8_t const* const argmin = p.argmin.data + row;
            CodeOf<T> const last_code = CodeOf<T>(window * window - 1);
#pragma GCC ivdep
            for (int64_t x = 0; x < width; ++x) codes[radius + x] = std::min(CodeOf<T>(argmin[x]), last_code);
            auto const there = [&](int64_t dy) FOCUS_INLINE { return ring + clamped(y + dy, height) % window * size; };
            if constexpr (Channels == 3 && Together == 3) {
                select_ends<Bytes>(there(-1), there(0), there(1), codes + radius, image.stride, width, forces + radius);
            } else {
                for (int64_t i = 0; i < window * window; ++i) {
                    Offset const offset = offset_of(int(i), p.window);
                    scratch.places[i] = there(offset.y) - ring + radius + offset.x;
                }
                look_up_ends(ring, scratch.places.data(), codes + radius, channels, image.stride, width, forces + radius);
            }
            bool const store = p.grad_target && y >= row_begin && y < row_end;
            find_forces(image, y, p.grad_distance ? p.grad_distance.data + row : scratch.grad.data(), p.power, scratch.weights.data(),
                        forces + radius, store ? p.grad_target.data + b * channels * area + y * width : scratch.unused.data(),
                        store ? area : 0, scratch.grad_mask.data() + y % window * size);
            int64_t const last = pulled ? std::min(row_end - 1, y + radius) : -1;
            for (int64_t end_y = std::max(row_begin, y - radius); end_y <= last; ++end_y) {
                image.prefetch(end_y - y + radius, y + 1, loaded);
                for (int j = 0; j < int(window); j += Together) {
                    add_forces<Bytes, Channels, Together>(forces + j, codes + j, channels, image.stride, width,
                                                          CodeOf<T>((end_y - y + radius + 1) * window - 1 - j),
                                                          sums + end_y % window * size);
                }
            }
        }
        int64_t const done = y - halo;  // the last row of pixels that could pull at this one was y
        if (!pulled || done < row_begin) continue;
        T* const grad_mask = scratch.grad_mask.data() + done % window * size;
        bool const store = bool(p.grad_reconstruction);
        finish_row(image, done, sums + done % window * size,
                   store ? p.grad_reconstruction.data + b * channels * area + done * width : scratch.unused.data(), store ? area : 0,
                   grad_mask);
        if (p.grad_mask) std::memcpy(p.grad_mask.data + b * area + done * width, grad_mask, width * sizeof(T));
    }
}

template <int Channels, int Together, typename T>
void backward_band(NeighborMinBackwardParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end) {
    BackwardScratch<T> scratch(p);
    vectorized_by_register([&](auto bytes) FOCUS_INLINE { backward_rows<bytes, Channels, Together>(p, b, row_begin, row_end, scratch); });
}

// Of the forward pass on one thread, roughly.
template <typename Parameters>
double nanoseconds(Parameters const& p) {
    return 0.1 * p.window * p.window * p.target.count();
}

}  // namespace

template <typename T>
void neighbor_min_cpu(NeighborMinParameters<T> const& p, int threads) {
    auto const forward = p.target.size[1] != 3 ? forward_band<0, 1, T>
                         : p.window == 3       ? forward_band<3, 3, T>
                         : p.window == 5       ? forward_band<3, 5, T>
                                               : forward_band<3, 1, T>;
    if (p.argmin.count() > 0) {
        threads = worthwhile_threads(threads, nanoseconds(p));
        Bands const bands(p.argmin.size[0], p.argmin.size[1], threads);
        parallel_for(bands.count, threads, [&](int64_t task) { forward(p, bands.image(task), bands.begin(task), bands.end(task)); });
    }
    if (!p.loss) return;
    double const total = ordered_sum(p.partial_sums.data, p.partial_sums.count());
    p.loss.data[0] = static_cast<T>(p.mean ? total / std::max<int64_t>(p.argmin.count(), 1) : total);
}

template <typename T>
void neighbor_min_backward_cpu(NeighborMinBackwardParameters<T> const& p, int threads) {
    if (p.argmin.count() == 0) return;
    auto const backward = p.target.size[1] != 3 ? backward_band<0, 1, T>
                          : p.window == 3       ? backward_band<3, 3, T>
                          : p.window == 5       ? backward_band<3, 5, T>
                                                : backward_band<3, 1, T>;
    threads = worthwhile_threads(threads, 2 * nanoseconds(p));
    Bands const bands(p.argmin.size[0], p.argmin.size[1], threads);
    parallel_for(bands.count, threads, [&](int64_t task) { backward(p, bands.image(task), bands.begin(task), bands.end(task)); });
}

template void neighbor_min_cpu(NeighborMinParameters<float> const&, int);
template void neighbor_min_cpu(NeighborMinParameters<double> const&, int);
template void neighbor_min_backward_cpu(NeighborMinBackwardParameters<float> const&, int);
template void neighbor_min_backward_cpu(NeighborMinBackwardParameters<double> const&, int);

}  // namespace focus
