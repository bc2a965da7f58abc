#include "common/face_boxes.h"
#include "rasterize/nearest_face.h"
#include "render/render_math.h"

namespace focus {

namespace {

// One thread per pixel.
__global__ void __launch_bounds__(kBlockSize) resolve_kernel(RenderParameters<float> p, unsigned long long const* nearest) {
    int64_t const channels = p.image.size[1], height = p.image.size[2], width = p.image.size[3], area = height * width;
    FOCUS_GRID_STRIDE_LOOP(pixel, p.face_index.count()) {
        int64_t const row = quotient(pixel, width), b = quotient(row, height);
        Coverage coverage;
        int32_t const f = resolve(p, nearest[pixel], b, static_cast<int>(pixel - row * width), static_cast<int>(row - b * height),
                                  static_cast<int>(height), static_cast<int>(width), &coverage);
        p.face_index.data[pixel] = f;
        p.mask.data[pixel] = f < 0 ? 0.0f : 1.0f;
        float* const values = p.image.data + b * channels * area + (pixel - b * area);
        if (f < 0) {
            for (int64_t c = 0; c < channels; ++c) values[c * area] = 0.0f;
            continue;
        }
        int32_t const face[3] = {p.faces.data[int64_t(3) * f], p.faces.data[int64_t(3) * f + 1], p.faces.data[int64_t(3) * f + 2]};
        float barycentric[3];
        for (int k = 0; k < 3; ++k) barycentric[k] = static_cast<float>(coverage.barycentric[k]);
        float const* const attributes = attributes_of(p, b);
        for (int64_t c = 0; c < channels; ++c) values[c * area] = interpolate_channel(attributes, channels, face, barycentric, c);
    }
}

// A face of an image, and what its pixels need.
struct FaceState {
    PixelBox box;
    int64_t image, first_pixel;  // of the image
    int32_t face;

    FOCUS_HD bool prepare(RenderBackwardParameters<float> const& p, int64_t item) {
        image = quotient(item, p.faces.size[0]);
        box = p.scratch.box(item);
        first_pixel = image * p.face_index.stride();
        face = static_cast<int32_t>(item - image * p.faces.size[0]);
        return box.count() > 0;
    }
};

// The gradients of a face's three corners, added up over its pixels: the positions, and with kChannels > 0 all attributes beside them.
template <int kChannels>
struct AddCornerGradients {
    static constexpr int kSums = 3 * (3 + kChannels);
    using State = FaceState;

    RenderBackwardParameters<float> p;

    FOCUS_HD bool prepare(int64_t item, State* state) const { return state->prepare(p, item); }

    FOCUS_HD void visit(State const& state, int x, int y, double* sums) const {
        int64_t const area = p.face_index.stride(), pixel = y * p.face_index.size[2] + x;
        if (p.face_index.data[state.first_pixel + pixel] != state.face) return;
        int64_t const channels = kChannels > 0 ? kChannels : p.attributes.size[2];
        float const* const vertices = p.screen_vertices.data + state.image * p.screen_vertices.stride();
        float const* const grad_image = p.grad_image.data + state.first_pixel * channels + pixel;
        int32_t const* const face = p.faces.data + int64_t(3) * state.face;
        float const* const attributes = attributes_of(p, state.image);
        Corners const at(vertices, face);
        Location const location = at.locate(x, y, p.perspective_correct);
        double grad_barycentric[3];
        find_barycentric_gradient(
            channels, [&](int k, int64_t c) { return static_cast<double>(attributes[face[k] * channels + c]); },
            [&](int64_t c) { return static_cast<double>(grad_image[c * area]); }, grad_barycentric);
        location.add_gradient(at.x, at.y, at.z, p.perspective_correct, grad_barycentric, static_cast<double const*>(nullptr), sums);
        for (int c = 0; c < kChannels; ++c) add_attribute_gradient(grad_image[c * area], location.barycentric, sums + 9 + 3 * c);
    }

    FOCUS_HD void store(int64_t item, int k, double sum) const {
        int64_t const corner = 3 * item + (k < 9 ? k / 3 : k % 3);
        p.grad_corners.data[corner * (3 + p.attributes.size[2]) + (k < 9 ? k % 3 : k / 3)] = static_cast<float>(sum);
    }
};

// One channel of the attributes. An item is a channel of a face of an image.
struct AddChannelGradients {
    static constexpr int kSums = 3;
    struct State : FaceState {
        float const* grad_image;  // of the channel of the image
    };

    RenderBackwardParameters<float> p;

    FOCUS_HD bool prepare(int64_t item, State* state) const {
        int64_t const channels = p.attributes.size[2], face = quotient(item, channels), c = item - face * channels;
        bool const shown = state->prepare(p, face);
        state->grad_image = p.grad_image.data + (state->image * channels + c) * p.face_index.stride();
        return shown;
    }

    FOCUS_HD void visit(State const& state, int x, int y, double* sums) const {
        int64_t const pixel = y * p.face_index.size[2] + x;
        if (p.face_index.data[state.first_pixel + pixel] != state.face) return;
        Corners const at(p.screen_vertices.data + state.image * p.screen_vertices.stride(), p.faces.data + int64_t(3) * state.face);
        add_attribute_gradient(state.grad_image[pixel], at.locate(x, y, p.perspective_correct).barycentric, sums);
    }

    FOCUS_HD void store(int64_t item, int k, double sum) const {
        int64_t const channels = p.attributes.size[2], face = quotient(item, channels), c = item - face * channels;
        p.grad_corners.data[(3 * face + k) * (3 + channels) + 3 + c] = static_cast<float>(sum);
    }
};

// The list of pieces serves one visit of the boxes after another.
__global__ void clear_pieces_kernel(PieceList list) { list.clear(); }

// One thread per image and vertex adds the positions and attributes of its corners, in the order of the topology.
template <int kChannels>
__global__ void __launch_bounds__(kBlockSize) gather_vertices_kernel(RenderBackwardParameters<float> p) {
    constexpr int kNumbers = 3 + kChannels;
    int64_t const vertex_count = p.screen_vertices.size[1], face_count = p.faces.size[0];
    FOCUS_GRID_STRIDE_LOOP(i, p.screen_vertices.size[0] * vertex_count) {
        int64_t const b = quotient(i, vertex_count), v = i - b * vertex_count;
        double sums[kNumbers] = {};
        for (int32_t j = p.offsets.data[v]; j < p.offsets.data[v + 1]; ++j) {
            int32_t const corner = p.corners.data[j];
            if (!p.scratch.is_shown(b * face_count + corner / 3)) continue;  // nothing was stored
            float const* const grad = p.grad_corners.data + (b * 3 * face_count + corner) * kNumbers;
            for (int k = 0; k < kNumbers; ++k) sums[k] += grad[k];
        }
        for (int k = 0; k < 3; ++k) p.grad_screen_vertices.data[3 * i + k] = static_cast<float>(sums[k]);
        for (int c = 0; c < kChannels; ++c) p.grad_attributes.data[kChannels * i + c] = static_cast<float>(sums[3 + c]);
    }
}

// The same for any number of attributes, and for one of both gradients: one thread per image, vertex and number (x, y, z or an attribute).
// Attributes that the images share are added by the threads of the first one.
__global__ void __launch_bounds__(kBlockSize) gather_corners_kernel(RenderBackwardParameters<float> p) {
    int64_t const batch = p.screen_vertices.size[0], vertex_count = p.screen_vertices.size[1], face_count = p.faces.size[0];
    int64_t const channels = p.attributes.size[2], numbers = 3 + channels;
    FOCUS_GRID_STRIDE_LOOP(i, (batch > 0 ? batch : p.attributes.size[0]) * vertex_count * numbers) {
        int64_t const row = quotient(i, numbers), k = i - row * numbers, first = quotient(row, vertex_count);
        int64_t const v = row - first * vertex_count;
        bool const attribute = k >= 3, shared = attribute && p.attributes.size[0] == 1;
        if (!(attribute ? p.grad_attributes : p.grad_screen_vertices) || (shared ? first > 0 : batch == 0)) continue;
        double sum = 0.0;
        for (int64_t b = first; b < (shared ? batch : first + 1); ++b) {
            for (int32_t j = p.offsets.data[v]; j < p.offsets.data[v + 1]; ++j) {
                int32_t const corner = p.corners.data[j];
                if (!p.scratch.is_shown(b * face_count + corner / 3)) continue;  // nothing was stored
                sum += p.grad_corners.data[(b * 3 * face_count + corner) * numbers + k];
            }
        }
        if (attribute) {
            p.grad_attributes.data[row * channels + k - 3] = static_cast<float>(sum);
        } else {
            p.grad_screen_vertices.data[3 * row + k] = static_cast<float>(sum);
        }
    }
}

// One thread per pixel.
__global__ void __launch_bounds__(kBlockSize) render_tangent_kernel(RenderTangentParameters<float> p) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    FOCUS_GRID_STRIDE_LOOP(pixel, p.face_index.count()) {
        int64_t const row = quotient(pixel, width), b = quotient(row, height);
        render_pixel_tangent(p, b, row - b * height, pixel - row * width);
    }
}

}  // namespace

void render_cuda(RenderParameters<float> const& p, Stream stream) {
    int64_t const pixels = p.face_index.count();
    if (pixels == 0) return;
    unsigned long long* const nearest = find_nearest("render", p, p.image.size[2], p.image.size[3], stream);
    launch("render_resolve", resolve_kernel, grid_size(pixels), kBlockSize, stream, p, nearest);
}

void render_backward_cuda(RenderBackwardParameters<float> const& p, Stream stream) {
    PieceList const list = find_face_boxes(p.scratch, p.face_index, stream);
    if (p.attributes.size[2] == kRenderChannels && p.grad_screen_vertices && p.grad_attributes) {
        visit_boxes("render_backward", AddCornerGradients<kRenderChannels>{p}, ShownItems(p.scratch, 1), list, stream);
    } else {
        if (p.grad_screen_vertices) visit_boxes("render_backward", AddCornerGradients<0>{p}, ShownItems(p.scratch, 1), list, stream);
        if (p.grad_attributes) {
            if (p.grad_screen_vertices) launch("clear_pieces", clear_pieces_kernel, 1, 1, stream, list);
            visit_boxes("render_attributes", AddChannelGradients{p}, ShownItems(p.scratch, p.attributes.size[2]), list, stream);
        }
    }
    int64_t const vertices = p.screen_vertices.size[0] * p.screen_vertices.size[1];
    int64_t const shared = p.attributes.size[0] * p.attributes.size[1];  // of no image, too: their gradient is 0
    int64_t const numbers = (vertices < shared ? shared : vertices) * (3 + p.attributes.size[2]);
    if (p.attributes.size[2] == kRenderChannels && p.grad_screen_vertices && p.grad_attributes && p.attributes.size[0] != 1) {
        return launch("render_gather", gather_vertices_kernel<kRenderChannels>, grid_size(vertices), kBlockSize, stream, p);
    }
    launch("render_gather", gather_corners_kernel, grid_size(numbers), kBlockSize, stream, p);
}

void render_tangent_cuda(RenderTangentParameters<float> const& p, Stream stream) {
    launch("render_tangent", render_tangent_kernel, grid_size(p.face_index.count()), kBlockSize, stream, p);
}

}  // namespace focus
