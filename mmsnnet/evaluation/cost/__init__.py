"""What a whole model costs: FLOPs and parameters of backbone, neck and heads."""
