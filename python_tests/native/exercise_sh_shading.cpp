#include "exercise.h"
#include "sh_shading/sh_shading.h"

namespace focus::exercise {

namespace {

void run() {
    constexpr int64_t kVertices = kShChunk + 3, kChunks = 2, kCount = kBatch * kVertices * 3, kLights = kBatch * 3 * kShBands;
    Buffer<float> normals(random_floats(kCount, -1.0f, 1.0f, 1)), albedo(random_floats(kCount, 0.0f, 1.0f, 2));
    Buffer<float> coefficients(random_floats(kLights, -1.0f, 1.0f, 3)), grad_colors(random_floats(kCount, -1.0f, 1.0f, 4));
    Buffer<float> colors_cpu(kCount), colors_cuda(kCount), partial(kLights * kChunks);
    Buffer<float> normals_cpu(kCount), albedo_cpu(kCount), light_cpu(kLights), normals_cuda(kCount), albedo_cuda(kCount),
        light_cuda(kLights);

    ShShadingParameters<float> p{normals.input(kBatch, kVertices, 3), albedo.input(kBatch, kVertices, 3),
                                 coefficients.input(kBatch, 3, kShBands), colors_cpu.view(kBatch, kVertices, 3)};
    sh_shading_cpu(p, 2);
    p.colors = colors_cuda.view(kBatch, kVertices, 3);
    sh_shading_cuda(on_card(p), nullptr);
    wait_for_device();
    expect_same_bits(colors_cuda, colors_cpu, "colours");

    ShShadingBackwardParameters<float> q{p.normals,
                                         p.albedo,
                                         p.coefficients,
                                         grad_colors.input(kBatch, kVertices, 3),
                                         normals_cpu.view(kBatch, kVertices, 3),
                                         albedo_cpu.view(kBatch, kVertices, 3),
                                         partial.view(kBatch, kChunks, 3, kShBands),
                                         light_cpu.view(kBatch, 3, kShBands)};
    sh_shading_backward_cpu(q, 2);
    q.grad_normals = normals_cuda.view(kBatch, kVertices, 3);
    q.grad_albedo = albedo_cuda.view(kBatch, kVertices, 3);
    q.grad_coefficients = light_cuda.view(kBatch, 3, kShBands);
    sh_shading_backward_cuda(on_card(q), nullptr);
    wait_for_device();
    expect_same_bits(normals_cuda, normals_cpu, "gradient of the normals");
    expect_same_bits(albedo_cuda, albedo_cpu, "gradient of the albedo");
    expect_same_bits(light_cuda, light_cpu, "gradient of the light");

    Buffer<float> tangent_cpu(kCount), tangent_cuda(kCount);
    ShShadingTangentParameters<float> t{
        p.normals, p.albedo, p.coefficients, q.grad_colors, p.albedo, p.coefficients, tangent_cpu.view(kBatch, kVertices, 3)};
    sh_shading_tangent_cpu(t, 2);
    t.colors_tangent = tangent_cuda.view(kBatch, kVertices, 3);
    sh_shading_tangent_cuda(on_card(t), nullptr);
    wait_for_device();
    expect_same_bits(tangent_cuda, tangent_cpu, "tangent of the colours");
}

Exercise const exercise("sh_shading", run);

}  // namespace

}  // namespace focus::exercise
