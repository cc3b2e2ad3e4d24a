"""Cost of the application for segmentation beside mmsegmentation and the released procedure of DAFormer."""
