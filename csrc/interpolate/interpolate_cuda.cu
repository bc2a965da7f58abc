#include "common/face_boxes.h"
#include "common/launch.h"
#include "interpolate/interpolate_math.h"

namespace focus {

namespace {

// The attributes of the image that holds a pixel.
template <typename Parameters>
__device__ inline float const* attributes_of(Parameters const& p, int64_t b) {
    return p.attributes.data + (p.attributes.size[0] == 1 ? 0 : b) * p.attributes.stride();
}

// One thread per pixel. An index beyond the faces counts as background: checking it on the host would cost a synchronisation.
__global__ void __launch_bounds__(kBlockSize) interpolate_kernel(InterpolateParameters<float> p) {
    int64_t const area = p.face_index.stride(), channels = p.attributes.size[2];
    FOCUS_GRID_STRIDE_LOOP(pixel, p.face_index.count()) {
        int32_t const f = p.face_index.data[pixel];
        bool const covered = f >= 0 && f < p.faces.size[0];
        int64_t const b = quotient(pixel, area);
        float const* const attributes = attributes_of(p, b);
        float* const values = p.values.data + b * channels * area + (pixel - b * area);
        for (int64_t c = 0; c < channels; ++c) {
            values[c * area] =
                covered ? interpolate_channel(attributes, channels, p.faces.data + int64_t(3) * f, p.barycentric.data + 3 * pixel, c)
                        : 0.0f;
        }
    }
}

// One thread per pixel.
__global__ void __launch_bounds__(kBlockSize) barycentric_gradient_kernel(InterpolateBackwardParameters<float> p) {
    int64_t const area = p.face_index.stride(), channels = p.attributes.size[2];
    FOCUS_GRID_STRIDE_LOOP(pixel, p.face_index.count()) {
        int32_t const f = p.face_index.data[pixel];
        bool const covered = f >= 0 && f < p.faces.size[0];
        int64_t const b = quotient(pixel, area);
        float const* const grad_values = p.grad_values.data + b * channels * area + (pixel - b * area);
        for (int k = 0; k < 3; ++k) {
            p.grad_barycentric.data[3 * pixel + k] =
                covered ? barycentric_gradient(attributes_of(p, b), channels, p.faces.data[int64_t(3) * f + k], grad_values, area) : 0.0f;
        }
    }
}

// The gradients of one channel at a face's three corners, added up over its pixels. An item is a channel of a face of an image.
struct AddCornerGradients {
    static constexpr int kSums = 3;
    struct State {
        PixelBox box;
        float const* grad_values;  // of the channel of the image
        int64_t first_pixel;       // of the image
        int32_t face;
    };

    InterpolateBackwardParameters<float> p;

    FOCUS_HD bool prepare(int64_t item, State* state) const {
        int64_t const channels = p.attributes.size[2], area = p.face_index.stride();
        int64_t const face = quotient(item, channels), c = item - face * channels, b = quotient(face, p.faces.size[0]);
        state->box = p.scratch.box(face);
        state->grad_values = p.grad_values.data + (b * channels + c) * area;
        state->first_pixel = b * area;
        state->face = static_cast<int32_t>(face - b * p.faces.size[0]);
        return state->box.count() > 0;
    }

    FOCUS_HD void visit(State const& state, int x, int y, double* sums) const {
        int64_t const pixel = y * p.face_index.size[2] + x;
        if (p.face_index.data[state.first_pixel + pixel] != state.face) return;
        add_attribute_gradient(state.grad_values[pixel], p.barycentric.data + 3 * (state.first_pixel + pixel), sums);
    }

    FOCUS_HD void store(int64_t item, int k, double sum) const {
        int64_t const channels = p.attributes.size[2], face = quotient(item, channels), c = item - face * channels;
        p.grad_corners.data[(3 * face + k) * channels + c] = static_cast<float>(sum);
    }
};

// One thread per vertex, channel and image, or all images where they share the attributes, adds the corners in the order of the topology.
__global__ void __launch_bounds__(kBlockSize) gather_corners_kernel(InterpolateBackwardParameters<float> p) {
    int64_t const vertex_count = p.attributes.size[1], channels = p.attributes.size[2], face_count = p.faces.size[0];
    int64_t const images = p.attributes.size[0] == 1 ? p.face_index.size[0] : 1;
    FOCUS_GRID_STRIDE_LOOP(i, p.grad_attributes.count()) {
        int64_t const row = quotient(i, channels), c = i - row * channels, first = quotient(row, vertex_count);
        int64_t const v = row - first * vertex_count;
        double sum = 0.0;
        for (int64_t b = first; b < first + images; ++b) {
            for (int32_t j = p.offsets.data[v]; j < p.offsets.data[v + 1]; ++j) {
                int32_t const corner = p.corners.data[j];
                if (!p.scratch.is_shown(b * face_count + corner / 3)) continue;  // nothing was stored
                sum += p.grad_corners.data[(b * 3 * face_count + corner) * channels + c];
            }
        }
        p.grad_attributes.data[i] = static_cast<float>(sum);
    }
}

}  // namespace

void interpolate_cuda(InterpolateParameters<float> const& p, Stream stream) {
    launch("interpolate", interpolate_kernel, grid_size(p.face_index.count()), kBlockSize, stream, p);
}

void interpolate_backward_cuda(InterpolateBackwardParameters<float> const& p, Stream stream) {
    if (p.grad_barycentric) {
        launch("barycentric_gradient", barycentric_gradient_kernel, grid_size(p.face_index.count()), kBlockSize, stream, p);
    }
    if (!p.grad_attributes) return;
    PieceList const list = find_face_boxes(p.scratch, p.face_index, stream);
    visit_boxes("attribute_gradient", AddCornerGradients{p}, ShownItems(p.scratch, p.attributes.size[2]), list, stream);
    launch("attribute_gather", gather_corners_kernel, grid_size(p.grad_attributes.count()), kBlockSize, stream, p);
}

}  // namespace focus
