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

    // The image of a tile, and its first pixel.
    __device__ void locate(int64_t tile, int64_t* b, int64_t* top, int64_t* left) const {
        int64_t const tile_row = quotient(tile, columns);
        *b = quotient(tile_row, rows);
        *top = (tile_row - *b * rows) * kNeighborTileHeight;
        *left = (tile - tile_row * columns) * kNeighborTileWidth;
    }

    // Calls body(b, y, x) for each pixel of a tile, with the threads of the block.
    template <typename Body>
    __device__ void for_pixels(int64_t tile, int64_t height, int64_t width, Body const& body) const {
        int64_t b, top, left;
        locate(tile, &b, &top, &left);
        for (int i = threadIdx.x; i < kNeighborTileHeight * kNeighborTileWidth; i += blockDim.x) {
            int64_t const y = top + i / kNeighborTileWidth, x = left + i % kNeighborTileWidth;
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

// Three channels and a window of 3x3, the common case, have kernels of their own, in which a tile and the pixels round it lie in shared
// memory: what each pixel gives to the windows round it is worked out once.
constexpr int kChannels3 = 3, kWindow3 = 3;
constexpr int kHaloHeight = kNeighborTileHeight + 2, kHaloWidth = kNeighborTileWidth + 2, kHaloArea = kHaloHeight * kHaloWidth;
constexpr int kTogetherBlockSize = kNeighborTileHeight * kNeighborTileWidth / kTogether;
static_assert(kTogetherBlockSize % kWarpSize == 0 && kNeighborTileWidth % kTogether == 0);

// Calls body(i, pixel) for each pixel of a tile with its halo: i in [0, kHaloArea), and its number in the image, -1 outside of it.
template <typename Body>
__device__ void for_halo(int64_t top, int64_t left, int64_t height, int64_t width, Body const& body) {
    for (int i = threadIdx.x; i < kHaloArea; i += blockDim.x) {
        int64_t const y = top - 1 + i / kHaloWidth, x = left - 1 + i % kHaloWidth;
        body(i, y >= 0 && y < height && x >= 0 && x < width ? y * width + x : -1);
    }
}

// kTogether pixels a thread, moved together where their addresses allow it: the same pixels for the same thread either way.
template <bool kWide>
__global__ void __launch_bounds__(kTogetherBlockSize) neighbor_min_3x3_kernel(NeighborMinParameters<float> p, Tiles tiles) {
    __shared__ float there[kChannels3][kHaloArea];  // m R
    int64_t const height = p.argmin.size[1], width = p.argmin.size[2];
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        int64_t b, top, left;
        tiles.locate(tile, &b, &top, &left);
        MaskedPair<float> const image(p, b);
        for_halo(top, left, height, width, [&](int i, int64_t pixel) {
            for (int c = 0; c < kChannels3; ++c) {
                there[c][i] = pixel < 0 ? 0.0f : image.mask_at(pixel) * image.reconstruction[c * image.area + pixel];
            }
        });
        __syncthreads();
        int const row = kTogether * threadIdx.x / kNeighborTileWidth, column = kTogether * threadIdx.x % kNeighborTileWidth;
        int64_t const y = top + row, x = left + column;
        float sum = 0.0f;
        if (y < height && x < width) {
            int const count = static_cast<int>(width - x < kTogether ? width - x : kTogether);
            int64_t const first = y * width + x;
            Pixels own[kChannels3], mask, nearest;
            int index[kTogether];
            for (int i = 0; i < kTogether; ++i) {
                nearest[i] = INFINITY;
                index[i] = kWindow3 * kWindow3 / 2;  // the pixel itself, where every distance is infinite
            }
            if (image.mask) mask = load_pixels<kWide>(image.mask + first, count);
            for (int c = 0; c < kChannels3; ++c) {
                own[c] = load_pixels<kWide>(image.target + c * image.area + first, count);
                for (int i = 0; image.mask && i < kTogether; ++i) own[c][i] = mask[i] * own[c][i];
            }
            for (int dy = 0; dy < kWindow3; ++dy) {
                if (y + dy - 1 < 0 || y + dy - 1 >= height) continue;
                float of_row[kChannels3][kTogether + 2];
                for (int c = 0; c < kChannels3; ++c) {
                    for (int i = 0; i < kTogether + 2; ++i) of_row[c][i] = there[c][(row + dy) * kHaloWidth + column + i];
                }
                for (int dx = 0; dx < kWindow3; ++dx) {
                    for (int i = 0; i < kTogether; ++i) {
                        float squared = 0.0f;
                        for (int c = 0; c < kChannels3; ++c) {
                            float const difference = own[c][i] - of_row[c][i + dx];
                            squared += difference * difference;
                        }
                        bool const inside = (i + dx > 0 || x > 0) && x + i + dx - 1 < width;
                        bool const better = inside && replaces(squared, nearest[i]);
                        nearest[i] = better ? squared : nearest[i];
                        index[i] = better ? dy * kWindow3 + dx : index[i];
                    }
                }
            }
            int64_t const pixel = b * image.area + first;
            if constexpr (kWide) {
                using Byte = unsigned char;
                *reinterpret_cast<uchar4*>(p.argmin.data + pixel) = uchar4{Byte(index[0]), Byte(index[1]), Byte(index[2]), Byte(index[3])};
            }
            for (int i = 0; i < kTogether; ++i) {  // to a constant, so that what is indexed stays in registers
                if (i >= count) continue;
                if (!kWide) p.argmin.data[pixel + i] = static_cast<uint8_t>(index[i]);
                if (p.power == 1) nearest[i] = sqrtf(nearest[i]);
                sum += nearest[i];
            }
            if (p.distance) store_pixels<kWide>(p.distance.data + pixel, nearest, count);
        }
        if (p.loss) sum = block_sum(sum);
        if (p.loss && threadIdx.x == 0) p.partial_sums.data[tile] = sum;
        __syncthreads();  // before the next tile is written
    }
}

__global__ void __launch_bounds__(kSumBlockSize) neighbor_min_sum_kernel(NeighborMinParameters<float> p, int64_t count) {
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

// The same for three channels and 3x3. The forces of a tile and its halo are worked out once, and wait in shared memory for those that they
// pull at.
__global__ void __launch_bounds__(kBlockSize) neighbor_min_3x3_backward_kernel(NeighborMinBackwardParameters<float> p, Tiles tiles) {
    constexpr uint8_t kNowhere = 255;
    __shared__ float forces[kChannels3][kHaloArea];
    __shared__ uint8_t argmins[kHaloArea];
    int64_t const height = p.argmin.size[1], width = p.argmin.size[2];
    float const loss_grad = p.grad_loss ? loss_gradient(p) : 0.0f;
    for (int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
        int64_t b, top, left;
        tiles.locate(tile, &b, &top, &left);
        MaskedPair<float> const image(p, b);
        for_halo(top, left, height, width, [&](int i, int64_t pixel) {
            argmins[i] = kNowhere;
            if (pixel < 0) return;
            argmins[i] = p.argmin.data[b * image.area + pixel];
            Offset const offset = offset_of(argmins[i], kWindow3);
            int64_t const y = top - 1 + i / kHaloWidth, x = left - 1 + i % kHaloWidth;
            int64_t const there = clamped(y + offset.y, height) * width + clamped(x + offset.x, width);
            float const grad = p.grad_distance ? p.grad_distance.data[b * image.area + pixel] : loss_grad;
            float difference[kChannels3], squared = 0.0f;
            for (int c = 0; c < kChannels3; ++c) {
                difference[c] = image.difference(c, pixel, there);
                squared += difference[c] * difference[c];
            }
            float const weight = pull(squared, grad, p.power);
            for (int c = 0; c < kChannels3; ++c) forces[c][i] = weight * difference[c];
        });
        __syncthreads();
        for (int i = threadIdx.x; i < kNeighborTileHeight * kNeighborTileWidth; i += blockDim.x) {
            int const row = i / kNeighborTileWidth, column = i % kNeighborTileWidth;
            int64_t const y = top + row, x = left + column, pixel = y * width + x;
            if (y >= height || x >= width) continue;
            int const own = (row + 1) * kHaloWidth + column + 1;
            float sums[kChannels3] = {}, grad_mask = 0.0f;
            for (int dy = 0; dy < kWindow3; ++dy) {
                for (int dx = 0; dx < kWindow3; ++dx) {
                    int const from = own + (dy - 1) * kHaloWidth + dx - 1;
                    if (argmins[from] != kWindow3 * kWindow3 - 1 - (dy * kWindow3 + dx)) continue;
                    for (int c = 0; c < kChannels3; ++c) sums[c] += forces[c][from];
                }
            }
            float const mask = image.mask_at(pixel);
            int64_t const first = b * kChannels3 * image.area + pixel;
            for (int c = 0; c < kChannels3; ++c) {
                if (p.grad_target) p.grad_target.data[first + c * image.area] = mask * forces[c][own];
                if (p.grad_reconstruction) p.grad_reconstruction.data[first + c * image.area] = -mask * sums[c];
            }
            if (!p.grad_mask) continue;
            for (int c = 0; c < kChannels3; ++c) grad_mask += image.target[c * image.area + pixel] * forces[c][own];
            for (int c = 0; c < kChannels3; ++c) grad_mask -= image.reconstruction[c * image.area + pixel] * sums[c];
            p.grad_mask.data[b * image.area + pixel] = grad_mask;
        }
        __syncthreads();  // before the next tile is written
    }
}

}  // namespace

void neighbor_min_cuda(NeighborMinParameters<float> const& p, Stream stream) {
    Tiles const tiles(p.argmin.size[0], p.argmin.size[1], p.argmin.size[2]);
    unsigned int const blocks = grid_size(tiles.count, 1);
    bool const wide = reinterpret_cast<uintptr_t>(p.argmin.data) % sizeof(uchar4) == 0 &&
                      fit_wide_pixels(p.argmin.size[2], p.target, p.reconstruction, p.mask, p.distance);
    // Which kernel it is follows from sizes alone, and so do the bits of a loss.
    if (p.target.size[1] == kChannels3 && p.window == kWindow3) {
        auto const kernel = wide ? neighbor_min_3x3_kernel<true> : neighbor_min_3x3_kernel<false>;
        launch("neighbor_min_3x3", kernel, blocks, kTogetherBlockSize, stream, p, tiles);
    } else {
        auto const kernel = p.target.size[1] == 3 ? neighbor_min_kernel<3> : neighbor_min_kernel<0>;
        launch("neighbor_min", kernel, blocks, kBlockSize, stream, p, tiles);
    }
    if (p.loss) launch("neighbor_min_sum", neighbor_min_sum_kernel, 1, kSumBlockSize, stream, p, tiles.count);
}

void neighbor_min_backward_cuda(NeighborMinBackwardParameters<float> const& p, Stream stream) {
    Tiles const tiles(p.argmin.size[0], p.argmin.size[1], p.argmin.size[2]);
    auto const kernel = p.target.size[1] == kChannels3 && p.window == kWindow3 ? neighbor_min_3x3_backward_kernel
                        : p.target.size[1] == 3                                ? neighbor_min_backward_kernel<3>
                                                                               : neighbor_min_backward_kernel<0>;
    launch("neighbor_min_backward", kernel, grid_size(tiles.count, 1), kBlockSize, stream, p, tiles);
}

}  // namespace focus
