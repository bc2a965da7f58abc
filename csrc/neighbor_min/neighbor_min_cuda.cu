#include "common/sum_cuda.h"
#include "common/wide_pixels.h"
#include "neighbor_min/neighbor_min_math.h"

namespace focus {

namespace {

// The images cut into tiles, one a block: the windows of neighbouring pixels overlap, so most of what a tile reads lies in the cache.
struct Tiles {
    explicit __host__ __device__ Tiles(int64_t batch, int64_t height, int64_t width)
        : rows((height + kNeighborTileHeight - 1) / kNeighborTileHeight),
          columns((width + kNeighborTileWidth - 1) / kNeighborTileWidth),
          count(batch * rows * columns) {}

    // Calls body(b, y, x) for each pixel of a tile, or the first of each kCount in a row, with the threads of the block.
    template <int kCount = 1, typename Body>
    __device__ void for_pixels(int64_t tile, int64_t height, int64_t width, Body const& body) const {
        int64_t const tile_row = quotient(tile, columns), b = quotient(tile_row, rows);
        for (int i = kCount * threadIdx.x; i < kNeighborTileHeight * kNeighborTileWidth; i += kCount * blockDim.x) {
            int64_t const y = (tile_row - b * rows) * kNeighborTileHeight + i / kNeighborTileWidth;
            int64_t const x = (tile - tile_row * columns) * kNeighborTileWidth + i % kNeighborTileWidth;
            if (y < height && x < width) body(b, y, x);
        }
    }

    int64_t rows, columns, count;
};

template <int Channels>
__global__ void neighbor_min_kernel(NeighborMinParameters<float> p, Tiles tiles) {
    int64_t const height = p.argmin.size[1], width = p.argmin.size[2], radius = p.window / 2;
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        float sum = 0.0f;
        tiles.for_pixels(tile, height, width, [&](int64_t b, int64_t y, int64_t x) {
            MaskedPair<float> const image(p, b);
            float nearest = INFINITY;
            int64_t index = p.window * p.window / 2;  // the pixel itself, where every distance is infinite
            int64_t const last_y = y + radius < height ? y + radius : height - 1, last_x = x + radius < width ? x + radius : width - 1;
            for (int64_t there_y = y < radius ? 0 : y - radius; there_y <= last_y; ++there_y) {
                for (int64_t there_x = x < radius ? 0 : x - radius; there_x <= last_x; ++there_x) {
                    float const squared = image.squared_distance<Channels>(y * width + x, there_y * width + there_x);
                    if (!replaces(squared, nearest)) continue;
                    nearest = squared;
                    index = (there_y - y + radius) * p.window + there_x - x + radius;
                }
            }
            int64_t const pixel = b * image.area + y * width + x;
            p.argmin.data[pixel] = static_cast<uint8_t>(index);
            float const term = p.power == 1 ? sqrtf(nearest) : nearest;
            if (p.distance) p.distance.data[pixel] = term;
            sum += term;
        });
        if (!p.loss) continue;  // the same for all threads of the grid, so the barriers of block_sum are reached by all or none
        sum = block_sum(sum);
        if (threadIdx.x == 0) p.partial_sums.data[tile] = sum;
    }
}

constexpr int kTogether = 4;  // pixels of a thread of the kernel below
constexpr int kWideBlockSize = kNeighborTileHeight * kNeighborTileWidth / kTogether;
static_assert(kWideBlockSize % kWarpSize == 0);

// The pixels [x - 1, x + 4] of a row, each but the outermost two in the image; those are 0 where they are not.
__device__ void load_window_row(float const* row, int64_t x, int64_t width, float* pixels) {
    auto const own = load_pixels<kTogether>(row + x);
    pixels[0] = x > 0 ? row[x - 1] : 0.0f;
    for (int i = 0; i < kTogether; ++i) pixels[i + 1] = own[i];
    pixels[kTogether + 1] = x + kTogether < width ? row[x + kTogether] : 0.0f;
}

// Three channels, 3x3: each row of a window is read once for four pixels.
__global__ void __launch_bounds__(kWideBlockSize) neighbor_min_wide_kernel(NeighborMinParameters<float> p, Tiles tiles) {
    constexpr int kChannels = 3, kWindow = 3;
    int64_t const height = p.argmin.size[1], width = p.argmin.size[2];
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        float sum = 0.0f;
        tiles.for_pixels<kTogether>(tile, height, width, [&](int64_t b, int64_t y, int64_t x) {
            MaskedPair<float> const image(p, b);
            Pixels<kTogether> own[kChannels], nearest;
            int index[kTogether];
            for (int i = 0; i < kTogether; ++i) {
                nearest[i] = INFINITY;
                index[i] = kWindow * kWindow / 2;
            }
            int64_t const first = y * width + x;
            for (int c = 0; c < kChannels; ++c) {
                own[c] = load_pixels<kTogether>(image.target + c * image.area + first);
                if (!image.mask) continue;
                auto const mask = load_pixels<kTogether>(image.mask + first);
                for (int i = 0; i < kTogether; ++i) own[c][i] = mask[i] * own[c][i];
            }
            for (int dy = 0; dy < kWindow; ++dy) {
                int64_t const there_y = y + dy - 1;
                if (there_y < 0 || there_y >= height) continue;
                float mask[kTogether + 2], there[kChannels][kTogether + 2];
                if (image.mask) load_window_row(image.mask + there_y * width, x, width, mask);
                for (int c = 0; c < kChannels; ++c) {
                    load_window_row(image.reconstruction + c * image.area + there_y * width, x, width, there[c]);
                    for (int i = 0; image.mask && i < kTogether + 2; ++i) there[c][i] = mask[i] * there[c][i];
                }
                for (int dx = 0; dx < kWindow; ++dx) {
                    for (int i = 0; i < kTogether; ++i) {
                        float squared = 0.0f;
                        for (int c = 0; c < kChannels; ++c) {
                            float const difference = own[c][i] - there[c][i + dx];
                            squared += difference * difference;
                        }
                        bool const inside = (i + dx > 0 || x > 0) && (i + dx < kTogether + 1 || x + kTogether < width);
                        bool const better = inside && replaces(squared, nearest[i]);
                        nearest[i] = better ? squared : nearest[i];
                        index[i] = better ? dy * kWindow + dx : index[i];
                    }
                }
            }
            int64_t const pixel = b * image.area + first;
            using Byte = unsigned char;
            *reinterpret_cast<uchar4*>(p.argmin.data + pixel) = uchar4{Byte(index[0]), Byte(index[1]), Byte(index[2]), Byte(index[3])};
            for (int i = 0; i < kTogether; ++i) {
                if (p.power == 1) nearest[i] = sqrtf(nearest[i]);
                sum += nearest[i];
            }
            if (p.distance) store_pixels(p.distance.data + pixel, nearest);
        });
        if (!p.loss) continue;
        sum = block_sum(sum);
        if (threadIdx.x == 0) p.partial_sums.data[tile] = sum;
    }
}

__global__ void neighbor_min_sum_kernel(NeighborMinParameters<float> p, int64_t count) {
    double const total = sum_of_chunks(p.partial_sums.data, count);
    int64_t const pixels = p.argmin.count();
    if (threadIdx.x == 0) p.loss.data[0] = static_cast<float>(p.mean && pixels ? total / pixels : total);
}

// One thread per pixel adds what pulls at it: its own force, and those of the pixels in its window whose minimum it is, in row-major order.
template <int Channels>
__global__ void neighbor_min_backward_kernel(NeighborMinBackwardParameters<float> p, Tiles tiles) {
    constexpr int kChannels = Channels ? Channels : 1;  // added up together
    int64_t const height = p.argmin.size[1], width = p.argmin.size[2], radius = p.window / 2;
    float const loss_grad = p.grad_loss ? loss_gradient(p) : 0.0f;
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        tiles.for_pixels(tile, height, width, [&](int64_t b, int64_t y, int64_t x) {
            MaskedPair<float> const image(p, b);
            uint8_t const* const argmin = p.argmin.data + b * image.area;
            int64_t const pixel = y * width + x, first = b * image.channels * image.area + pixel;
            auto const weight = [&](int64_t from, int64_t there) {
                float const grad = p.grad_distance ? p.grad_distance.data[b * image.area + from] : loss_grad;
                return pull(image.squared_distance<Channels>(from, there), grad, p.power);
            };
            float grad_mask = 0.0f;
            if (p.grad_target || p.grad_mask) {
                Offset const offset = offset_of(argmin[pixel], p.window);
                int64_t const there = clamped(y + offset.y, height) * width + clamped(x + offset.x, width);
                float const own_weight = weight(pixel, there);
                for (int64_t c = 0; c < image.channels; ++c) {
                    float const force = own_weight * image.difference(c, pixel, there);
                    if (p.grad_target) p.grad_target.data[first + c * image.area] = image.mask_at(pixel) * force;
                    grad_mask += image.target[c * image.area + pixel] * force;
                }
            }
            if (!p.grad_reconstruction && !p.grad_mask) return;
            int64_t const last_y = y + radius < height ? y + radius : height - 1, last_x = x + radius < width ? x + radius : width - 1;
            for (int64_t c = 0; c < image.channels; c += kChannels) {
                float sums[kChannels] = {};
                for (int64_t from_y = y < radius ? 0 : y - radius; from_y <= last_y; ++from_y) {
                    for (int64_t from_x = x < radius ? 0 : x - radius; from_x <= last_x; ++from_x) {
                        int64_t const from = from_y * width + from_x;
                        if (argmin[from] != (y - from_y + radius) * p.window + x - from_x + radius) continue;
                        float const from_weight = weight(from, pixel);
                        for (int k = 0; k < kChannels; ++k) sums[k] += from_weight * image.difference(c + k, from, pixel);
                    }
                }
                for (int k = 0; k < kChannels; ++k) {
                    int64_t const i = (c + k) * image.area;
                    if (p.grad_reconstruction) p.grad_reconstruction.data[first + i] = -image.mask_at(pixel) * sums[k];
                    grad_mask -= image.reconstruction[i + pixel] * sums[k];
                }
            }
            if (p.grad_mask) p.grad_mask.data[b * image.area + pixel] = grad_mask;
        });
    }
}

}  // namespace

void neighbor_min_cuda(NeighborMinParameters<float> const& p, Stream stream) {
    Tiles const tiles(p.argmin.size[0], p.argmin.size[1], p.argmin.size[2]);
    bool const wide = p.target.size[1] == 3 && p.window == 3 && reinterpret_cast<uintptr_t>(p.argmin.data) % sizeof(uchar4) == 0 &&
                      fit_wide_pixels(p.argmin.size[2], p.target, p.reconstruction, p.mask, p.distance);
    auto const kernel = wide ? neighbor_min_wide_kernel : p.target.size[1] == 3 ? neighbor_min_kernel<3> : neighbor_min_kernel<0>;
    launch("neighbor_min", kernel, grid_size(tiles.count, 1), wide ? kWideBlockSize : kBlockSize, stream, p, tiles);
    if (p.loss) launch("neighbor_min_sum", neighbor_min_sum_kernel, 1, kSumBlockSize, stream, p, tiles.count);
}

void neighbor_min_backward_cuda(NeighborMinBackwardParameters<float> const& p, Stream stream) {
    Tiles const tiles(p.argmin.size[0], p.argmin.size[1], p.argmin.size[2]);
    auto const kernel = p.target.size[1] == 3 ? neighbor_min_backward_kernel<3> : neighbor_min_backward_kernel<0>;
    launch("neighbor_min_backward", kernel, grid_size(tiles.count, 1), kBlockSize, stream, p, tiles);
}

}  // namespace focus
