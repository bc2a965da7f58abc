#include "exercise.h"
#include "interpolate/interpolate.h"
#include "rasterize/rasterize.h"

namespace focus::exercise {

namespace {

constexpr int64_t kChannels = 2;

struct Gradients {
    explicit Gradients(int64_t items) : attributes(items * Mesh::kVertices * kChannels) {}
    Buffer<float> attributes, barycentric{kPixels * 3};
};

struct Scene {
    Mesh mesh;
    Buffer<int32_t> face_index{kPixels};
    Buffer<float> barycentric{kPixels * 3}, depth{kPixels};
    Buffer<float> grad_values{random_floats(kPixels * kChannels, -1.0f, 1.0f, 5)};
    Buffer<float> attributes{random_floats(kBatch * Mesh::kVertices * kChannels, -1.0f, 1.0f, 6)};

    Scene() {
        RasterizeParameters<float> p{};
        p.screen_vertices = mesh.vertices.input(kBatch, Mesh::kVertices, 3);
        p.faces = mesh.faces.input(Mesh::kFaces, 3);
        p.barycentric = barycentric.view(kBatch, kHeight, kWidth, 3);
        p.depth = depth.view(kBatch, kHeight, kWidth);
        p.face_index = face_index.view(kBatch, kHeight, kWidth);
        rasterize_cpu(p, 1);
    }

    void forward(int64_t items, bool cuda, Buffer<float>& values) {
        InterpolateParameters<float> const p{attributes.input(items, Mesh::kVertices, kChannels), mesh.faces.input(Mesh::kFaces, 3),
                                             face_index.input(kBatch, kHeight, kWidth), barycentric.input(kBatch, kHeight, kWidth, 3),
                                             values.view(kBatch, kChannels, kHeight, kWidth)};
        if (cuda) {
            interpolate_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            interpolate_cpu(p, 2);
        }
    }

    void backward(int64_t items, bool cuda, Gradients& gradients) {
        Buffer<int32_t> boxes(kBatch * Mesh::kFaces * 4), shown(1 + kBatch * Mesh::kFaces);
        Buffer<int64_t> pieces(kPieceListSize);
        Buffer<double> piece_sums(kPieceCapacity * 3);
        Buffer<float> grad_corners(kBatch * Mesh::kFaces * 3 * kChannels);
        InterpolateBackwardParameters<float> const p{attributes.input(items, Mesh::kVertices, kChannels),
                                                     mesh.faces.input(Mesh::kFaces, 3),
                                                     mesh.offsets.input(Mesh::kVertices + 1),
                                                     mesh.corners.input(3 * Mesh::kFaces),
                                                     face_index.input(kBatch, kHeight, kWidth),
                                                     barycentric.input(kBatch, kHeight, kWidth, 3),
                                                     grad_values.input(kBatch, kChannels, kHeight, kWidth),
                                                     {boxes.view(kBatch, Mesh::kFaces, 4), pieces.view(kPieceListSize),
                                                      piece_sums.view(kPieceCapacity, 3), shown.view(1 + kBatch * Mesh::kFaces)},
                                                     grad_corners.view(kBatch, Mesh::kFaces, 3, kChannels),
                                                     gradients.attributes.view(items, Mesh::kVertices, kChannels),
                                                     gradients.barycentric.view(kBatch, kHeight, kWidth, 3)};
        if (cuda) {
            interpolate_backward_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            interpolate_backward_cpu(p, 2);
        }
    }
};

void run() {
    Scene scene;
    std::vector<int64_t> background;
    for (int64_t pixel = 0; background.size() < 3; ++pixel) {
        if (scene.face_index[pixel] < 0) background.push_back(pixel);
    }
    for (int64_t const items : {int64_t(1), kBatch}) {
        Buffer<float> values_cpu(kPixels * kChannels), values_cuda(kPixels * kChannels);
        Gradients on_cpu(items), on_cuda(items), again(items);
        for (int64_t const pixel : background) scene.face_index[pixel] = -1;
        scene.forward(items, false, values_cpu);
        scene.backward(items, false, on_cpu);
        // What a damaged index may hold; on the card these pixels are background.
        scene.face_index[background[0]] = Mesh::kFaces;
        scene.face_index[background[1]] = INT32_MAX;
        scene.face_index[background[2]] = -7;
        scene.forward(items, true, values_cuda);
        scene.backward(items, true, on_cuda);
        scene.backward(items, true, again);
        expect_same_bits(values_cuda, values_cpu, "values");
        expect_same_bits(on_cuda.barycentric, on_cpu.barycentric, "gradient of the barycentrics");
        expect_close(on_cuda.attributes, on_cpu.attributes, "gradient of the attributes");
        expect_same_bits(on_cuda.attributes, again.attributes, "gradient of the attributes, again");
    }
}

Exercise const exercise("interpolate", run);

}  // namespace

}  // namespace focus::exercise
