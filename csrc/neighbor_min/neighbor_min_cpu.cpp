#include "common/parallel.h"
#include "common/sum.h"
#include "neighbor_min/neighbor_min_3x3_cpu.h"
#include "neighbor_min/neighbor_min_rows.h"

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
    AlignedMemory<T> ring, own, nearest, ones;  // ring: masked rows of the reconstruction, row y at y % window
    AlignedMemory<CodeOf<T>> codes;
    bool finite[kLargestWindow];  // of the rows of the ring
};

// Compares the pixels of row y with all of their neighbours. Together: neighbours that are visited at once, 1 or the window.
template <int Bytes, int Channels, int Together, typename T>
FOCUS_HD void compare_row(ImageRows<T> const& image, int64_t y, int64_t loaded, ForwardScratch<T>& scratch) {
    int64_t const window = image.window, radius = image.radius, width = image.width;
    T *const own = scratch.own.data(), *const nearest = scratch.nearest.data();
    CodeOf<T>* const codes = scratch.codes.data();
    bool const own_finite = image.load(image.target, y, own);
    for (int64_t x = 0; x < width; ++x) nearest[x] = std::numeric_limits<T>::infinity();
    for (int64_t x = 0; x < width; ++x) codes[x] = CodeOf<T>(window * window / 2);  // the pixel itself, where every distance is infinite
    int64_t const first = std::max<int64_t>(0, y - radius), last = std::min(image.height - 1, y + radius);
    for (int64_t there_y = first; there_y <= last; ++there_y) {
        image.prefetch(there_y - first, y + 1, loaded);
        T const* const there = scratch.ring.data() + there_y % window * image.size() + kMargin - radius;
        CodeOf<T> const code = CodeOf<T>((there_y - y + radius) * window);
        for (int j = 0; j < int(window); j += Together) {
            if (own_finite && scratch.finite[there_y % window]) {
                visit<Bytes, Channels, Together, true>(own + kMargin, there + j, image.channels, image.stride, width, code + j, nearest,
                                                       codes);
            } else {
                visit<Bytes, Channels, Together, false>(own + kMargin, there + j, image.channels, image.stride, width, code + j, nearest,
                                                        codes);
            }
        }
    }
}

template <int Bytes, int Channels, int Together, typename T>
FOCUS_HD void forward_rows(NeighborMinParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end, ForwardScratch<T>& scratch) {
    ImageRows<T> const image(p, b, scratch.ones.data());
    int64_t const window = image.window, radius = image.radius, width = image.width;
    bool const is_3x3 = Channels == 3 && Together == 3 && fits_3x3<T, Bytes>(width);
    T* const nearest = scratch.nearest.data();
    CodeOf<T>* const codes = scratch.codes.data();
    int64_t loaded = std::max<int64_t>(0, row_begin - radius);
    for (int64_t y = row_begin; y < row_end; ++y) {
        for (; loaded <= std::min(image.height - 1, y + radius); ++loaded) {
            T* const row = scratch.ring.data() + loaded % window * image.size();
            scratch.finite[loaded % window] = is_3x3 ? load_3x3<Bytes>(image, loaded, row) : image.load(image.reconstruction, loaded, row);
        }
        bool compared = false;
        if (is_3x3) {
            T const* rows[3];
            bool finite = true;
            for (int64_t i = 0; i < 3; ++i) {
                int64_t const place = clamped(y - 1 + i, image.height) % 3;
                rows[i] = scratch.ring.data() + place * image.size();
                finite = finite && scratch.finite[place];
            }
            compared = finite && compare_3x3<Bytes>(image, y, rows, nearest, codes);
        }
        if (!compared) compare_row<Bytes, Channels, Together>(image, y, loaded, scratch);
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

// Rows of an image with four colours of each pixel side by side, [ceil(C / 4), stride, 4], and pixel x at kMargin + x: where a pixel's
// nearest neighbour lies is known only when its argmin is read, and this way its colours take one load, whatever the window.
template <typename T, int Channels>
struct QuadRows : ImageRows<T> {
    using ImageRows<T>::ImageRows;

    FOCUS_HD int64_t groups() const { return Channels ? (Channels + 3) / 4 : (this->channels + 3) / 4; }
    FOCUS_HD int64_t group_size() const { return 4 * this->stride; }
    FOCUS_HD int64_t row_size() const { return groups() * group_size(); }

    // Calls body(i, c) for the channels c = 4 * group + i.
    template <typename Body>
    FOCUS_HD void for_channels_of(int64_t group, Body const& body) const {
        if constexpr (Channels > 0 && Channels <= 4) {
            unrolled<Channels>([&](auto i) FOCUS_INLINE { body(i, int64_t(i)); });
        } else {
            for (int64_t c = 4 * group; c < std::min(this->channels, 4 * group + 4); ++c) body(c - 4 * group, c);
        }
    }

    // Calls body(x, count) for every four pixels of a row, and for the last count < 4.
    template <typename Body>
    FOCUS_HD void for_quads(Body const& body) const {
        int64_t x = 0;
        for (; x + 4 <= this->width; x += 4) body(x, std::integral_constant<int64_t, 4>{});
        if (x < this->width) body(x, this->width - x);
    }

    // Asks for what lies one row further on. Rows of several planes at once are more than the processor foresees; the cache next to it
    // would not hold them either, since planes often lie a multiple of 4096 bytes apart.
    template <bool ForWriting>
    FOCUS_HD void prefetch_next_row(T const* row, int64_t x) const {
        if (x % int64_t(64 / sizeof(T)) == 0) __builtin_prefetch(row + x + this->width, ForWriting, 2);
    }

    // Row y of the reconstruction times the mask, its ends repeated as by `load`.
    FOCUS_HD void load_quads(int64_t y, T* out) const {
        T const* const mask = this->mask_row(y);
        for (int64_t group = 0; group < groups(); ++group) {
            T* const to = out + group * group_size() + 4 * kMargin;
            for_quads([&](int64_t x, auto count) FOCUS_INLINE {
                Padded<T> const masks = load_first(mask + x, count);
                Padded<T> quads[4] = {};
                for_channels_of(group, [&](auto i, int64_t c) FOCUS_INLINE {
                    T const* const row = this->reconstruction + c * this->area + y * this->width;
                    prefetch_next_row<false>(row, x);
                    quads[i] = masks * load_first(row + x, count);
                });
                transpose<T>(quads);
                for (int i = 0; i < 4; ++i) store_padded<T>(to + 4 * (x + i), quads[i]);
            });
            for (int64_t x = 1; x <= this->radius; ++x) {
                store_padded<T>(to - 4 * x, load_padded(to));
                store_padded<T>(to + 4 * (this->width - 1 + x), load_padded(to + 4 * (this->width - 1)));
            }
        }
    }
};

template <typename T>
struct BackwardScratch {
    explicit BackwardScratch(NeighborMinBackwardParameters<T> const& p)
        : quads((p.target.size[1] + 3) / 4 * 4 * (padded(p.target.size[3]) + 2 * kMargin)),
          row(padded(p.target.size[3])),
          ring(p.window * quads),
          sums((p.window + 1) * quads),
          grad_mask(p.window * row),
          ones(row, T(1)),
          grad(row, p.grad_loss ? loss_gradient(p) : T(0)),
          ends(p.window * p.window),
          pulled(p.window * p.window) {}

    int64_t quads, row;
    AlignedMemory<T> ring, sums;  // row y at y % window: the masked reconstruction, and the sums of the forces that end there; one row more
                                  // takes the forces that end outside the band
    AlignedMemory<T> grad_mask, ones, grad;
    std::vector<int64_t> ends,
        pulled;  // by argmin: where in `ring` the colours lie that a pixel at x = 0 is nearest to, and where in `sums`
};

// Finds the forces of the pixels of row y of image b, and adds them to the sums of the pixels where they end.
template <int Channels, typename T>
FOCUS_HD void pull_row(NeighborMinBackwardParameters<T> const& p, QuadRows<T, Channels> const& image, int64_t b, int64_t y,
                       BackwardScratch<T>& scratch, T* grad_target, bool pulled) {
    int64_t const area = image.area, row = b * area + y * image.width;
    T const *const mask = image.mask_row(y), *const target = image.target + y * image.width;
    T const* const grad = p.grad_distance ? p.grad_distance.data + row : scratch.grad.data();
    T* const grad_mask = scratch.grad_mask.data() + y % image.window * scratch.row;
    uint8_t const* const argmin = p.argmin.data + row;
    int const last_code = p.window * p.window - 1, power = p.power;
    T *const ring = scratch.ring.data(), *const sums = scratch.sums.data();
    int64_t const *const ends_at = scratch.ends.data(), *const pulled_at = scratch.pulled.data();
    image.for_quads([&](int64_t x, auto count) FOCUS_INLINE {
        int codes[4];
        for (int64_t i = 0; i < 4; ++i) codes[i] = std::min<int>(argmin[x + (i < count ? i : 0)], last_code);
        Padded<T> const masks = load_first(mask + x, count);
        Padded<T> colors[4], forces[4];
        // e of neighbor_min_math.h for the channels of one group.
        auto const differences = [&](int64_t group) FOCUS_INLINE {
            for (int64_t i = 0; i < 4; ++i) {
                forces[i] = load_padded(ring + ends_at[codes[i]] + group * image.group_size() + 4 * (x + i));
            }
            transpose<T>(forces);
            image.for_channels_of(group, [&](auto i, int64_t c) FOCUS_INLINE {
                image.template prefetch_next_row<false>(target + c * area, x);
                colors[i] = load_first(target + c * area + x, count);
                forces[i] = masks * colors[i] - forces[i];
            });
        };
        Padded<T> squared = {};
        for (int64_t group = 0; power == 1 && group < image.groups(); ++group) {
            differences(group);
            image.for_channels_of(group, [&](auto i, int64_t) FOCUS_INLINE { squared += forces[i] * forces[i]; });
        }
        Padded<T> const grads = load_first(grad + x, count), zero = {};
        Padded<T> const weights = power == 2 ? T(2) * grads : squared == zero ? zero : grads / square_root(squared);  // as `pull`
        Padded<T> mask_gradient = zero;
        for (int64_t group = 0; group < image.groups(); ++group) {
            differences(group);
            image.for_channels_of(group, [&](auto i, int64_t c) FOCUS_INLINE {
                forces[i] = weights * forces[i];
                mask_gradient += colors[i] * forces[i];
                if (!grad_target) return;
                image.template prefetch_next_row<true>(grad_target + c * area, x);
                store_first<T>(grad_target + c * area + x, masks * forces[i], count);
            });
            transpose<T>(forces);
            for (int64_t i = 0; pulled && i < count; ++i) {
                T* const sum = sums + pulled_at[codes[i]] + group * image.group_size() + 4 * (x + i);
                store_padded<T>(sum, load_padded(sum) + forces[i]);
            }
        }
        store_padded<T>(grad_mask + x, mask_gradient);
    });
}

// The gradients of row y from the sums of all forces that end there; clears the sums.
template <int Channels, typename T>
FOCUS_HD void finish_row(QuadRows<T, Channels> const& image, int64_t y, T* sums, T const* pulling, T* grad_reconstruction, T* grad_mask) {
    T const *const mask = image.mask_row(y), *const reconstruction = image.reconstruction + y * image.width;
    image.for_quads([&](int64_t x, auto count) FOCUS_INLINE {
        Padded<T> const masks = load_first(mask + x, count);
        Padded<T> mask_gradient = load_padded(pulling + x);
        for (int64_t group = 0; group < image.groups(); ++group) {
            T* const from = sums + group * image.group_size() + 4 * (kMargin + x);
            Padded<T> forces[4];
            for (int i = 0; i < 4; ++i) {
                forces[i] = load_padded(from + 4 * i);
                store_padded<T>(from + 4 * i, Padded<T>{});
            }
            transpose<T>(forces);
            image.for_channels_of(group, [&](auto i, int64_t c) FOCUS_INLINE {
                mask_gradient -= load_first(reconstruction + c * image.area + x, count) * forces[i];
                if (!grad_reconstruction) return;
                image.template prefetch_next_row<true>(grad_reconstruction + c * image.area, x);
                store_first<T>(grad_reconstruction + c * image.area + x, -masks * forces[i], count);
            });
        }
        if (grad_mask) store_first<T>(grad_mask + x, mask_gradient, count);
    });
}

template <int Channels, typename T>
FOCUS_HD void backward_rows(NeighborMinBackwardParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end,
                            BackwardScratch<T>& scratch) {
    QuadRows<T, Channels> const image(p, b, scratch.ones.data());
    int64_t const window = image.window, radius = image.radius, height = image.height, width = image.width, area = image.area,
                  size = image.row_size(), plane = b * image.channels * area;
    T *const ring = scratch.ring.data(), *const sums = scratch.sums.data();
    // What pulls at the pixels of this band may start from rows outside it; without such gradients those rows need not be looked at.
    bool const pulled = p.grad_reconstruction || p.grad_mask;
    int64_t const halo = pulled ? radius : 0;
    int64_t const first = std::max<int64_t>(0, row_begin - halo);
    int64_t loaded = std::max<int64_t>(0, first - radius);
    for (int64_t y = first; y < row_end + halo; ++y) {
        if (y < height) {
            for (; loaded <= std::min(height - 1, y + radius); ++loaded) image.load_quads(loaded, ring + loaded % window * size);
            for (int64_t code = 0; code < window * window; ++code) {
                Offset const offset = offset_of(int(code), p.window);
                int64_t const end_y = y + offset.y, column = 4 * (kMargin + offset.x);
                scratch.ends[code] = clamped(end_y, height) % window * size + column;
                scratch.pulled[code] = (end_y >= row_begin && end_y < row_end ? end_y % window : window) * size + column;
            }
            pull_row(p, image, b, y, scratch,
                     p.grad_target && y >= row_begin && y < row_end ? p.grad_target.data + plane + y * width : nullptr, pulled);
        }
        int64_t const done = y - halo;  // the last row of pixels that could pull at this one was y
        if (!pulled || done < row_begin) continue;
        finish_row(image, done, sums + done % window * size, scratch.grad_mask.data() + done % window * scratch.row,
                   p.grad_reconstruction ? p.grad_reconstruction.data + plane + done * width : nullptr,
                   p.grad_mask ? p.grad_mask.data + b * area + done * width : nullptr);
    }
}

// The same for 3x3 and three colours.
template <int Bytes, typename T>
FOCUS_HD void backward_rows_3x3(NeighborMinBackwardParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end,
                                BackwardScratch<T>& scratch, Forces3x3<T>& forces) {
    ImageRows<T> const image(p, b, scratch.ones.data());
    int64_t const height = image.height, width = image.width, area = image.area, size = image.size(), plane = b * 3 * area;
    bool const pulled = p.grad_reconstruction || p.grad_mask;
    int64_t const halo = pulled ? 1 : 0;
    int64_t const first = std::max<int64_t>(0, row_begin - halo);
    int64_t loaded = std::max<int64_t>(0, first - 1);
    for (int64_t y = first; y < row_end + halo; ++y) {
        if (y < height) {
            for (; loaded <= std::min(height - 1, y + 1); ++loaded) load_3x3<Bytes>(image, loaded, scratch.ring.data() + loaded % 3 * size);
            T const* rows[3];
            for (int64_t i = 0; i < 3; ++i) rows[i] = scratch.ring.data() + clamped(y - 1 + i, height) % 3 * size;
            int64_t const pixel = b * area + y * width;
            load_codes_3x3<T>(p.argmin.data + pixel, width, forces.codes_of(y, height) + kMargin);
            pull_3x3<Bytes>(image, y, rows, p.grad_distance ? p.grad_distance.data + pixel : scratch.grad.data(), p.power,
                            forces.codes_of(y, height) + kMargin, forces.forces_of(y), scratch.grad_mask.data() + y % 3 * scratch.row,
                            p.grad_target && y >= row_begin && y < row_end ? p.grad_target.data + plane + y * width : nullptr);
        }
        int64_t const done = y - halo;
        if (!pulled || done < row_begin) continue;
        T const* forces_round[3];
        CodeOf<T> const* codes_round[3];
        for (int64_t i = 0; i < 3; ++i) {
            forces_round[i] = forces.forces_of(clamped(done - 1 + i, height));
            codes_round[i] = forces.codes_of(done - 1 + i, height);
        }
        finish_3x3<Bytes>(image, done, forces_round, codes_round, scratch.grad_mask.data() + done % 3 * scratch.row,
                          p.grad_reconstruction ? p.grad_reconstruction.data + plane + done * width : nullptr,
                          p.grad_mask ? p.grad_mask.data + b * area + done * width : nullptr);
    }
}

template <int Channels, typename T>
void backward_band(NeighborMinBackwardParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end) {
    BackwardScratch<T> scratch(p);
    if (Channels == 3 && p.window == 3 && fits_3x3<T, 64>(p.target.size[3])) {
        Forces3x3<T> forces(padded(p.target.size[3]) + 2 * kMargin);
        vectorized_by_register([&](auto bytes) FOCUS_INLINE { backward_rows_3x3<bytes>(p, b, row_begin, row_end, scratch, forces); });
        return;
    }
    vectorized([&]() FOCUS_INLINE { backward_rows<Channels>(p, b, row_begin, row_end, scratch); });
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
    auto const backward = p.target.size[1] == 3 ? backward_band<3, T> : backward_band<0, T>;
    threads = worthwhile_threads(threads, 2 * nanoseconds(p));
    Bands const bands(p.argmin.size[0], p.argmin.size[1], threads);
    parallel_for(bands.count, threads, [&](int64_t task) { backward(p, bands.image(task), bands.begin(task), bands.end(task)); });
}

template void neighbor_min_cpu(NeighborMinParameters<float> const&, int);
template void neighbor_min_cpu(NeighborMinParameters<double> const&, int);
template void neighbor_min_backward_cpu(NeighborMinBackwardParameters<float> const&, int);
template void neighbor_min_backward_cpu(NeighborMinBackwardParameters<double> const&, int);

}  // namespace focus
