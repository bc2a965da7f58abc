// Made-up images and their gradients, for the losses that compare two images pixel by pixel.
#pragma once

#include "common/color_difference.h"
#include "exercise.h"

namespace focus::exercise {

// An image of a whole chunk of pixels and some.
constexpr int64_t kRows = 3, kColumns = kPixelChunk / 2 - 5, kChunks = 2, kArea = kBatch * kRows * kColumns;

struct Images {
    explicit Images(int64_t image_channels)
        : channels(image_channels),
          target(random_floats(channels * kArea, 0.0f, 1.0f, 1)),
          reconstruction(random_floats(channels * kArea, 0.0f, 1.0f, 2)),
          mask(random_floats(kArea, 0.0f, 1.0f, 3)) {}

    template <typename Parameters>
    void give_inputs(Parameters& p) {
        p.target = target.input(kBatch, channels, kRows, kColumns);
        p.reconstruction = reconstruction.input(kBatch, channels, kRows, kColumns);
        p.mask = mask.input(kBatch, 1, kRows, kColumns);
    }

    int64_t channels;
    Buffer<float> target, reconstruction, mask;
};

struct Gradients {
    explicit Gradients(int64_t image_channels)
        : channels(image_channels), target(channels * kArea), reconstruction(channels * kArea), mask(kArea) {}

    template <typename Parameters>
    void give_outputs(Parameters& p) {
        p.grad_target = target.view(kBatch, channels, kRows, kColumns);
        p.grad_reconstruction = reconstruction.view(kBatch, channels, kRows, kColumns);
        p.grad_mask = mask.view(kBatch, 1, kRows, kColumns);
    }

    void expect_same(Gradients& other) {
        expect_same_bits(target, other.target, "gradient of the target");
        expect_same_bits(reconstruction, other.reconstruction, "gradient of the reconstruction");
        expect_same_bits(mask, other.mask, "gradient of the mask");
    }

    int64_t channels;
    Buffer<float> target, reconstruction, mask;
};

}  // namespace focus::exercise
