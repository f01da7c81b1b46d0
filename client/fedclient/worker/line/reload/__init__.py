"""Model reloading: follows the deployment pointer and the settings, and says what is served."""
