#include <algorithm>
#include <utility>

#include "antialias/antialias.h"
#include "exercise.h"
#include "rasterize/rasterize.h"

namespace focus::exercise {

namespace {

constexpr int64_t kChannels = 2;

struct Gradients {
    Buffer<float> image{kPixels * kChannels}, screen_vertices{kBatch * Mesh::kVertices * 3};
};

struct Scene {
    Mesh mesh;
    Buffer<int32_t> neighbors{3 * Mesh::kFaces}, face_index{kPixels}, edges{kPixels * 2};
    Buffer<float> image{random_floats(kPixels * kChannels, 0.0f, 1.0f, 5)};
    Buffer<float> grad_values{random_floats(kPixels * kChannels, -1.0f, 1.0f, 6)};
    Buffer<float> vertices_tangent{random_floats(kBatch * Mesh::kVertices * 3, -1.0f, 1.0f, 7)};

    Scene() {
        for (int64_t i = 0; i < 3 * Mesh::kFaces; ++i) {
            int64_t other = i;
            do other = (other + 1) % (3 * Mesh::kFaces);
            while (edge_of(other) != edge_of(i));
            neighbors[i] = static_cast<int32_t>(other);
        }
        Buffer<float> barycentric(kPixels * 3), depth(kPixels);
        RasterizeParameters<float> p{};
        p.screen_vertices = mesh.vertices.input(kBatch, Mesh::kVertices, 3);
        p.faces = mesh.faces.input(Mesh::kFaces, 3);
        p.barycentric = barycentric.view(kBatch, kHeight, kWidth, 3);
        p.depth = depth.view(kBatch, kHeight, kWidth);
        p.face_index = face_index.view(kBatch, kHeight, kWidth);
        rasterize_cpu(p, 1);
    }

    std::pair<int32_t, int32_t> edge_of(int64_t corner) {
        int32_t const a = mesh.faces[corner / 3 * 3 + (corner + 1) % 3], b = mesh.faces[corner / 3 * 3 + (corner + 2) % 3];
        return {std::min(a, b), std::max(a, b)};
    }

    void forward(bool cuda, Buffer<float>& values) {
        AntialiasParameters<float> const p{image.input(kBatch, kChannels, kHeight, kWidth),
                                           mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                           mesh.faces.input(Mesh::kFaces, 3),
                                           neighbors.input(3 * Mesh::kFaces),
                                           face_index.input(kBatch, kHeight, kWidth),
                                           values.view(kBatch, kChannels, kHeight, kWidth),
                                           edges.view(kBatch, kHeight, 2, kWidth),
                                           {}};
        if (cuda) {
            antialias_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            antialias_cpu(p, 2);
        }
    }

    void backward(bool cuda, Gradients& gradients) {
        Buffer<int32_t> boxes(kBatch * Mesh::kFaces * 4), shown(1 + kBatch * Mesh::kFaces);
        Buffer<int64_t> pieces(kPieceListSize);
        Buffer<double> piece_sums(kPieceCapacity * 6);
        Buffer<float> grad_corners(kBatch * Mesh::kFaces * 3 * 2);
        AntialiasBackwardParameters<float> const p{image.input(kBatch, kChannels, kHeight, kWidth),
                                                   mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                                   mesh.faces.input(Mesh::kFaces, 3),
                                                   mesh.offsets.input(Mesh::kVertices + 1),
                                                   mesh.corners.input(3 * Mesh::kFaces),
                                                   edges.input(kBatch, kHeight, 2, kWidth),
                                                   grad_values.input(kBatch, kChannels, kHeight, kWidth),
                                                   {boxes.view(kBatch, Mesh::kFaces, 4), pieces.view(kPieceListSize),
                                                    piece_sums.view(kPieceCapacity, 6), shown.view(1 + kBatch * Mesh::kFaces)},
                                                   grad_corners.view(kBatch, Mesh::kFaces, 3, 2),
                                                   gradients.image.view(kBatch, kChannels, kHeight, kWidth),
                                                   gradients.screen_vertices.view(kBatch, Mesh::kVertices, 3)};
        if (cuda) {
            antialias_backward_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            antialias_backward_cpu(p, 2);
        }
    }

    void tangent(bool cuda, Buffer<float>& result) {
        AntialiasTangentParameters<float> const p{image.input(kBatch, kChannels, kHeight, kWidth),
                                                  mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                                  mesh.faces.input(Mesh::kFaces, 3),
                                                  edges.input(kBatch, kHeight, 2, kWidth),
                                                  grad_values.input(kBatch, kChannels, kHeight, kWidth),
                                                  vertices_tangent.input(kBatch, Mesh::kVertices, 3),
                                                  result.view(kBatch, kChannels, kHeight, kWidth)};
        if (cuda) {
            antialias_tangent_cuda(on_card(p), nullptr);
            wait_for_device();
        } else {
            antialias_tangent_cpu(p, 2);
        }
    }
};

void run() {
    Scene scene;
    Buffer<float> values_cpu(kPixels * kChannels), values_cuda(kPixels * kChannels);
    Buffer<float> tangent_cpu(kPixels * kChannels), tangent_cuda(kPixels * kChannels);
    Gradients on_cpu, on_cuda, again;
    scene.forward(false, values_cpu);
    scene.tangent(false, tangent_cpu);
    scene.backward(false, on_cpu);
    scene.forward(true, values_cuda);
    scene.backward(true, on_cuda);
    scene.backward(true, again);
    scene.tangent(true, tangent_cuda);
    expect_same_bits(tangent_cuda, tangent_cpu, "tangent of the values");
    expect_same_bits(values_cuda, values_cpu, "values");
    expect_close(on_cuda.image, on_cpu.image, "gradient of the image");
    expect_close(on_cuda.screen_vertices, on_cpu.screen_vertices, "gradient of the vertices");
    expect_same_bits(on_cuda.screen_vertices, again.screen_vertices, "gradient of the vertices, again");
    // What a damaged index may hold: nothing outside of the arrays is looked at (the sanitizers watch).
    scene.face_index[0] = Mesh::kFaces;
    scene.face_index[3] = INT32_MAX;
    scene.face_index[kWidth] = -7;
    scene.forward(true, values_cuda);
    scene.edges[0] = 3 * Mesh::kFaces;
    scene.edges[3] = INT32_MAX;
    scene.edges[kWidth] = -7;
    scene.backward(true, on_cuda);
    scene.tangent(true, tangent_cuda);
}

Exercise const exercise("antialias", run);

}  // namespace

}  // namespace focus::exercise
