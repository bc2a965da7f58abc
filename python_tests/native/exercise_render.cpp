#include "exercise.h"
#include "render/render.h"

namespace focus::exercise {

namespace {

struct Image {
    explicit Image(int64_t channels) : values(kPixels * channels) {}
    Buffer<float> values, mask{kPixels};
    Buffer<int32_t> face_index{kPixels};
};

struct Gradients {
    Gradients(int64_t items, int64_t channels) : attributes(items * Mesh::kVertices * channels) {}
    Buffer<float> vertices{kBatch * Mesh::kVertices * 3}, attributes;
};

struct Scene {
    bool perspective_correct;
    int64_t items, channels;  // of the attributes
    Mesh mesh;
    Buffer<float> attributes{random_floats(items * Mesh::kVertices * channels, -1.0f, 1.0f, 6)};
    Buffer<float> grad_image{random_floats(kPixels * channels, -1.0f, 1.0f, 5)};
    Buffer<float> vertices_tangent{random_floats(kBatch * Mesh::kVertices * 3, -1.0f, 1.0f, 7)};

    Scene(bool perspective, int64_t attribute_items, int64_t channel_count)
        : perspective_correct(perspective), items(attribute_items), channels(channel_count) {}

    void forward(bool cuda, Image& image) {
        Buffer<int64_t> nearest(kPixels), pieces(kPieceListSize);
        RenderParameters<float> const p{mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                        attributes.input(items, Mesh::kVertices, channels),
                                        mesh.faces.input(Mesh::kFaces, 3),
                                        Cull::kNone,
                                        perspective_correct,
                                        image.values.view(kBatch, channels, kHeight, kWidth),
                                        image.mask.view(kBatch, 1, kHeight, kWidth),
                                        image.face_index.view(kBatch, kHeight, kWidth),
                                        nearest.view(kBatch, kHeight, kWidth),
                                        pieces.view(kPieceListSize)};
        if (cuda) {
            render_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            render_cpu(p, 2);
        }
    }

    void backward(bool cuda, Image& image, Gradients& gradients) {
        Buffer<int32_t> boxes(kBatch * Mesh::kFaces * 4), shown(1 + kBatch * Mesh::kFaces);
        Buffer<int64_t> pieces(kPieceListSize);
        Buffer<double> piece_sums(kPieceCapacity * kRenderSums);
        Buffer<float> grad_corners(kBatch * Mesh::kFaces * 3 * (3 + channels));
        RenderBackwardParameters<float> const p{mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                                attributes.input(items, Mesh::kVertices, channels),
                                                mesh.faces.input(Mesh::kFaces, 3),
                                                mesh.offsets.input(Mesh::kVertices + 1),
                                                mesh.corners.input(3 * Mesh::kFaces),
                                                perspective_correct,
                                                image.face_index.input(kBatch, kHeight, kWidth),
                                                grad_image.input(kBatch, channels, kHeight, kWidth),
                                                {boxes.view(kBatch, Mesh::kFaces, 4), pieces.view(kPieceListSize),
                                                 piece_sums.view(kPieceCapacity, kRenderSums), shown.view(1 + kBatch * Mesh::kFaces)},
                                                grad_corners.view(kBatch, Mesh::kFaces, 3, 3 + channels),
                                                gradients.vertices.view(kBatch, Mesh::kVertices, 3),
                                                gradients.attributes.view(items, Mesh::kVertices, channels)};
        if (cuda) {
            render_backward_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            render_backward_cpu(p, 2);
        }
    }

    void tangent(bool cuda, Image& image, Buffer<float>& result) {
        RenderTangentParameters<float> const p{mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                               attributes.input(items, Mesh::kVertices, channels),
                                               mesh.faces.input(Mesh::kFaces, 3),
                                               perspective_correct,
                                               image.face_index.input(kBatch, kHeight, kWidth),
                                               vertices_tangent.input(kBatch, Mesh::kVertices, 3),
                                               attributes.input(items, Mesh::kVertices, channels),
                                               result.view(kBatch, channels, kHeight, kWidth)};
        if (cuda) {
            render_tangent_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            render_tangent_cpu(p, 2);
        }
    }
};

void exercise_scene(bool perspective_correct, int64_t items, int64_t channels) {
    Scene scene(perspective_correct, items, channels);
    Image on_cpu(scene.channels), on_cuda(scene.channels);
    scene.forward(false, on_cpu);
    scene.forward(true, on_cuda);
    expect_same_bits(on_cuda.values, on_cpu.values, "image");
    expect_same_bits(on_cuda.mask, on_cpu.mask, "mask");
    expect_same_bits(on_cuda.face_index, on_cpu.face_index, "face index");

    Buffer<float> tangent_cpu(kPixels * scene.channels), tangent_cuda(kPixels * scene.channels);
    scene.tangent(false, on_cpu, tangent_cpu);
    scene.tangent(true, on_cuda, tangent_cuda);
    expect_same_bits(tangent_cuda, tangent_cpu, "tangent of the image");

    Gradients grad_cpu(scene.items, scene.channels), grad_cuda(scene.items, scene.channels), grad_again(scene.items, scene.channels);
    scene.backward(false, on_cpu, grad_cpu);
    // What a damaged index may hold; on the card these pixels are background.
    for (int64_t pixel = 0, damaged = 0; damaged < 3; ++pixel) {
        if (on_cuda.face_index[pixel] < 0) on_cuda.face_index[pixel] = damaged++ == 0 ? Mesh::kFaces : damaged == 1 ? INT32_MAX : -7;
    }
    scene.backward(true, on_cuda, grad_cuda);
    scene.backward(true, on_cuda, grad_again);
    expect_close(grad_cuda.vertices, grad_cpu.vertices, "gradient of the vertices");
    expect_close(grad_cuda.attributes, grad_cpu.attributes, "gradient of the attributes");
    expect_same_bits(grad_cuda.vertices, grad_again.vertices, "gradient of the vertices, again");
    expect_same_bits(grad_cuda.attributes, grad_again.attributes, "gradient of the attributes, again");
}

void run() {
    exercise_scene(false, kBatch, kRenderChannels);
    exercise_scene(true, 1, kRenderChannels);
    exercise_scene(true, kBatch, 2);
}

Exercise const exercise("render", run);

}  // namespace

}  // namespace focus::exercise
