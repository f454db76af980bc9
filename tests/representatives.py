"""Which models stand for all where testing every one takes too long."""

# Of every family and class the smallest model of each set of building blocks (tests/test_representatives.py).
# fmt: off
REPRESENTATIVES = frozenset((
    "alexnet", "alexnet_2012", "autoencoder", "contractive_autoencoder", "conv_autoencoder", "conv_vae",
    "convnext_tiny", "dbn", "deeplabv1_vgg16", "deeplabv2_resnet101", "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50", "deeplabv3plus_mobilenet_v2", "deeplabv3plus_resnet50", "denoising_autoencoder",
    "densenet121", "efficientnet_b0", "efficientnet_lite0", "efficientnet_v2_s",
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fcn16s",
    "fcn32s", "fcn8s", "fcn_resnet50", "fcos_resnet50_fpn", "gaussian_rbm", "googlenet", "inception_v3",
    "keypointrcnn_resnet50_fpn", "lenet5", "lraspp_mobilenet_v3_large", "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "mobilenetv1_100",
    "mobilevit_xxs", "mobilevitv2_050", "rbm", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "shufflenet_v1_g1",
    "shufflenet_v1_g2", "shufflenet_v2_x0_5", "sparse_autoencoder", "squeezenet1_1", "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large", "swin_t", "swin_v2_t", "unet_resnet18", "unet_resnet50", "vae", "vgg11",
    "vgg11_bn", "vit_b_16", "yolov1", "yolov1_tiny", "zfnet",
))

# Those without whom every class of block is trained all the same.
TRAINED = REPRESENTATIVES - {
    "deeplabv3_resnet50", "deeplabv3plus_resnet50", "fcn16s", "fcn32s", "regnet_x_400mf", "resnext50_32x4d",
    "shufflenet_v1_g1", "unet_resnet50", "vgg11", "zfnet",
}
# fmt: on
